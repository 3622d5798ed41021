import random

from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.records import RenderRequest, Segment, Shot
from flowcache.scheduler.queue import SegmentQueue, Video


def video(name: str, chain: list[int | None], priority: int = 0, chunks: int = 4, model: str = "m") -> Video:
    """One segment per entry of `chain`, which says the segment that it continues."""
    request = RenderRequest(
        name, (Shot("p", 9),), 64, 64, 12, 0, 3.0, 4, model=model, policy={"name": "off"}, priority=priority
    )
    return Video(request, tuple(Segment(name, i, 0, i, chunks, i, 1, after) for i, after in enumerate(chain)))


def test_priority_then_longest_remaining():
    queue = SegmentQueue([video("short", [None]), video("long", [None, 0, 1]), video("urgent", [None], priority=5)])
    assert [queue.take()[0].id for _ in range(3)] == ["urgent", "long", "short"]
    assert queue.take() is None


def test_a_gang_keeps_its_model_among_equals():
    queue = SegmentQueue([video("a", [None, 0], model="x"), video("b", [None], model="y")])
    assert queue.take("y")[0].id == "b"


def test_a_segment_waits_for_the_one_it_continues():
    queue = SegmentQueue([video("v", [None, 0])])
    _, first = queue.take()
    assert queue.take() is None
    queue.commit(first)
    assert queue.take()[1].index == 1


def test_a_buried_video_ends_when_its_last_attempt_does():
    queue = SegmentQueue([video("v", [None, None])])
    (_, first), (_, second) = queue.take(), queue.take()
    queue.requeue(first)
    queue.dead_letter("v")
    assert not queue.finished and queue.take() is None
    queue.commit(second)
    assert queue.finished


def test_a_video_that_was_dead_before_is_left_alone():
    dead = video("dead", [None])
    dead.dead = True
    queue = SegmentQueue([dead])
    assert queue.finished and queue.take() is None


@settings(deadline=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
def test_any_order_of_events_runs_everything_once(chains, gangs, seed):
    """Random completions and failures: each segment commits once, never before its parent, and the queue drains."""
    rng = random.Random(seed)
    videos = [
        video(f"v{n}", [None if i == 0 or cut else i - 1 for i, cut in enumerate(chain)])
        for n, chain in enumerate(chains)
    ]
    queue, running, committed = SegmentQueue(videos), [], []
    for _ in range(10_000):
        if queue.finished:
            break
        if rng.random() < 0.3:
            queue.release(lambda node, segment: False)
        while len(running) < gangs and (taken := queue.take(node=rng.choice([None, "a", "b"]))):
            running.append(taken[1])
        if not running:
            continue
        segment = running.pop(rng.randrange(len(running)))
        if rng.random() < 0.3:
            queue.requeue(segment, rng.choice([None, "a", "b"]))
            continue
        assert segment.after is None or (segment.video_id, segment.after) in committed
        queue.commit(segment)
        committed.append((segment.video_id, segment.index))
    assert queue.finished and not running
    assert sorted(committed) == sorted((v.request.id, s.index) for v in videos for s in v.segments)


def test_what_failed_on_one_node_is_first_tried_on_another():
    queue = SegmentQueue([video("long", [None, 0]), video("short", [None])])
    _, failed = queue.take()
    queue.requeue(failed, not_on="a")
    assert queue.startable == 2
    assert queue.take(node="a")[0].id == "short" and queue.take(node="a") is None and queue.take() is None
    assert queue.take(node="b") == (queue.videos["long"].request, failed) and queue.startable == 0


def test_it_is_anyones_when_there_is_no_other_node():
    queue = SegmentQueue([video("v", [None])])
    _, failed = queue.take()
    queue.requeue(failed, not_on="a")
    queue.release(lambda node, segment: True)
    assert queue.take(node="a") is None
    queue.release(lambda node, segment: node != "a")
    assert queue.take(node="a")[1] == failed and not queue.finished


def test_a_video_can_be_buried_while_it_waits_for_another_node():
    queue = SegmentQueue([video("v", [None, None])])
    (_, first), (_, second) = queue.take(), queue.take()
    queue.requeue(first, not_on="a")
    queue.requeue(second)
    queue.dead_letter("v")
    assert queue.finished and queue.startable == 0 and queue.take(node="b") is None


def test_a_withheld_video_leaves_the_queue_and_comes_back_where_it_was():
    queue = SegmentQueue([video("cat", [None, 0]), video("dog", [None])])
    _, running = queue.take()
    queue.withhold("cat", "cancelled")
    queue.withhold("dog", "skipped")
    assert (queue.startable, queue.take(), queue.finished) == (0, None, False)  # a segment of cat still runs
    queue.requeue(running)
    assert queue.finished and queue.chunks_left == 0 and not queue.left
    for name in ("cat", "cat", "dog"):  # twice is once
        queue.readmit(name)
    assert (queue.startable, queue.chunks_left, queue.take()[1].index) == (2, 12, 0)


def test_what_is_committed_of_a_withheld_video_counts_when_it_comes_back():
    queue = SegmentQueue([video("cat", [None, 0])])
    _, first = queue.take()
    queue.withhold("cat", "skipped")
    queue.commit(first)
    assert queue.finished
    queue.readmit("cat")
    assert queue.chunks_left == 4 and queue.take()[1].index == 1


def test_another_priority_counts_from_now_on():
    queue = SegmentQueue([video("short", [None]), video("long", [None, 0, 1]), video("other", [None], priority=5)])
    queue.prioritise("short", 9)
    queue.prioritise("other", -1)
    assert [queue.take()[0].id for _ in range(3)] == ["short", "long", "other"]  # long once: its others wait


def test_a_video_is_added_or_takes_anothers_place():
    queue = SegmentQueue([video("cat", [None])])
    queue.add(video("dog", [None, None]))
    queue.add(video("cat", [None, None, None]))
    assert (queue.startable, queue.chunks_left) == (5, 20)
    assert [queue.take()[0].id for _ in range(5)].count("cat") == 3 and queue.take() is None
