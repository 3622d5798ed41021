"""The driver over simulated gangs: what it does when they are slow, lost, late or asked to stop."""

import signal
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from benchmarks.simulated import connector, render
from flowcache.errors import StoreError
from flowcache.records import RenderRequest, Shot
from flowcache.scheduler.gang_pool import ClusterError
from flowcache.scheduler.ledger import Refused
from flowcache.scheduler.protocols import GangFailure
from flowcache.storage import layout
from flowcache.storage.commits import read_commits
from flowcache.storage.documents import to_json
from flowcache.storage.ownership import read_holder, read_owner
from flowcache.storage.verify import status
from flowcache.worker.task import Again, Flawed, Raised
from tests.unit.scheduler.studio import ONE_SEGMENT, TWO_SEGMENTS, Studio, request, sound


def test_every_video_is_done_and_a_second_run_has_nothing_to_do():
    studio = Studio(request("a"), request("b", ONE_SEGMENT))
    summary = studio.run(size=2)
    assert (summary.exit_code, summary.done, summary.rendered, summary.left) == (0, ("a", "b"), 14, 0)
    assert sound(studio.store)["rows"] == 16
    assert studio.run().rendered == 0 and len(studio.providers) == 1


def test_what_was_asked_for_reaches_the_ranks():
    studio, seen = Studio(request("a", ONE_SEGMENT)), []

    def connect(work):
        seen.append(work.settings.options)
        return connector(studio.providers, 1)(work)

    studio.run(connect=connect, dtype="bf16", vae_tiling="on", shard_weights=True, gang=2, threads=3)
    assert (seen[0].dtype, seen[0].vae_tiling, seen[0].shard_weights, seen[0].threads) == ("bf16", "on", True, 3)


def test_a_gang_finishes_a_video_before_it_begins_the_next():
    studio = Studio(*(request(name) for name in "abc"))
    studio.run()
    assert [name for name, _ in studio.notes.order] == [*"aabbcc"]


def test_gangs_come_and_go_with_the_cluster():
    studio = Studio(*(request(f"v{i:02d}") for i in range(12)))
    sizes = []

    def seconds(task):
        provider = studio.provider
        provider.size = {3: 4, 8: 2}.get(len(studio.notes.order), provider.size)
        alive = [gang for gang in provider.gangs if gang.alive]
        for gang in alive[provider.size :]:
            provider.kill(gang)
        sizes.append(len(alive[: provider.size]))
        return 20.0

    assert studio.run(size=1, seconds=seconds).exit_code == 0
    assert max(sizes) == 4 and sizes[0] == 1 and sizes[-1] <= 2
    assert any("the cluster has room for 4 gangs now, had for 1" in said for said in studio.notes.said)
    sound(studio.store)


def test_no_more_gangs_than_segments_that_can_start():
    studio = Studio(request("a"), request("b"))
    studio.run(size=50)
    assert len(studio.provider.gangs) == 2


def test_a_gang_that_nobody_needs_gives_its_resources_back():
    studio = Studio(request("short", ONE_SEGMENT), request("long", 57 + 48 * 20))
    alive = []

    def seconds(task):
        alive.append(sum(gang.alive for gang in studio.provider.gangs))
        return 30.0

    assert studio.run(size=2, seconds=seconds, idle_release=100.0).exit_code == 0
    assert alive[0] == 2 and alive[-1] == 1


def test_a_gang_without_news_is_replaced_and_its_segment_rendered_elsewhere():
    studio, stalls = Studio(request("a")), iter([None])
    summary = studio.run(seconds=lambda task: next(stalls, 5.0), segment_timeout=60.0)
    assert summary.exit_code == 0 and len(studio.provider.gangs) == 2
    assert studio.notes.causes == ["no chunk was finished for 61 s"]


def test_the_log_of_a_process_that_cannot_tell_any_more_is_fetched():
    studio = Studio(request("a"))
    studio.run(seconds=lambda task: None, segment_timeout=60.0, infra_retries=0)
    assert read_commits(studio.store).dead_letters["a"].log_tail == "last words of gang-1, rank 0"


@pytest.mark.parametrize("kind, budget", [("work", "retries"), ("infra", "infra_retries")])
def test_each_kind_of_fault_has_a_budget_of_its_own(kind, budget):
    def fault(task):
        if task.request.id == "bad":
            raise GangFailure(3, kind, "it broke", "line\n" * 2000, usable=kind == "work")

    studio = Studio(request("bad"), request("good"))
    summary = studio.run(fault=fault, **{"retries": 0, "infra_retries": 0, budget: 2})
    assert (summary.exit_code, summary.done, summary.failed) == (3, ("good",), {"bad": "it broke"})
    letter = read_commits(studio.store).dead_letters["bad"]
    assert (letter.kind, letter.attempts, letter.segment, letter.rank, letter.continues) == (kind, 3, 0, 3, None)
    assert RenderRequest.from_dict(letter.request) == studio.requests[0] and letter.log_tail.endswith("line\n")
    assert studio.notes.causes == ["it broke"] * 3
    assert studio.run().rendered == 0
    summary = studio.run(retry_failed=True)
    assert (summary.exit_code, summary.done) == (0, ("bad", "good"))
    sound(studio.store)


@pytest.mark.parametrize("fits", [True, False])
def test_what_a_gpu_has_no_room_for_is_tried_once_more_with_less_memory(fits):
    tried = []

    def fault(task):
        tried.append((task.segment.index, task.frugal))
        if task.segment.index == 1 and not (fits and task.frugal):
            raise GangFailure(0, "memory", "118.0 GiB. Would fit: --gang 2", usable=True)

    studio = Studio(request("a"))
    summary = studio.run(fault=fault, retries=0, infra_retries=0)
    assert tried == [(0, False), (1, False), (1, True)]
    assert studio.notes.again == ([True] if fits else [True, False])
    if fits:
        assert (summary.exit_code, summary.done) == (0, ("a",))
    else:
        assert (summary.exit_code, summary.failed) == (3, {"a": "118.0 GiB. Would fit: --gang 2"})
        letter = read_commits(studio.store).dead_letters["a"]
        assert (letter.kind, letter.attempts) == ("work", 1)
    sound(studio.store)


def test_what_is_as_large_as_what_did_not_fit_is_not_tried_first():
    """One attempt lost for all that are alike: a model of 14B takes minutes to load, and is loaded anew for each."""
    tried = []

    def fault(task):
        tried.append((task.request.id, task.segment.index, task.frugal))
        if task.request.width == 64 and not task.frugal:
            raise GangFailure(0, "memory", "118.0 GiB", usable=True)

    small = replace(request("small"), width=32)
    studio = Studio(request("a"), request("b"), replace(request("c"), seed=7), small)
    summary = studio.run(fault=fault, retries=0, infra_retries=0)
    assert summary.exit_code == 0 and studio.notes.again == [True]
    assert [each for each in tried if each[0] != "small"][0] == ("a", 0, False)
    assert {frugal for name, _, frugal in tried[1:] if name != "small"} == {True}
    assert {frugal for name, _, frugal in tried if name == "small"} == {False}


def test_a_dead_letter_names_what_the_segment_continues():
    def fault(task):
        if task.segment.index == 1:
            raise GangFailure(0, "work", "it broke", usable=True)

    studio = Studio(request("a"))
    studio.run(fault=fault)
    assert read_commits(studio.store).dead_letters["a"].continues == "_commits/a/00000.json"


def test_a_store_that_answers_nobody_is_nobodys_fault(monkeypatch):
    outage = iter(range(20))

    def fault(task):
        if next(outage, None) is not None:
            raise GangFailure(0, "store", "no answer", usable=True)

    studio = Studio(request("a"), request("b"))
    monkeypatch.setattr("flowcache.scheduler.store_writer.PAUSES", (0.0,))  # every answer counts as late
    summary = studio.run(fault=fault, infra_retries=0)
    assert summary.exit_code == 0 and len(studio.notes.causes) == 20


@pytest.mark.parametrize("kind", ["store", "node"])
@pytest.mark.parametrize(("size", "nodes"), [(1, 1), (2, 1), (3, 3)])
def test_a_video_that_the_store_refuses_is_left_when_all_others_are_done(kind, size, nodes):
    tried = []

    def fault(task):
        tried.append(task.request.id)
        if task.request.id == "b" and not cured:
            raise GangFailure(0, kind, "StoreError: QuotaExceeded", usable=True)

    cured, studio = False, Studio(*(request(name) for name in "abcdefgh"))
    with pytest.raises(Refused, match=r"all that is left \(1 video, 3 attempts in a row\); the last one: video b, s"):
        studio.run(size=size, nodes=nodes, fault=fault, retries=0, infra_retries=2)
    commits, seen = read_commits(studio.store), status(studio.store)
    assert commits.done == set("acdefgh") and not commits.dead_letters
    assert 3 <= tried.count("b") <= 3 + 3
    assert seen.exit_code == 1 and "QuotaExceeded" in seen.stopped.why and seen.stopped.videos_left == 1
    cured = True
    summary = studio.run(fault=fault)
    assert (summary.exit_code, summary.rendered) == (0, 9) and status(studio.store).stopped is None


@pytest.mark.parametrize("kind", ["store", "node"])
@pytest.mark.parametrize("size", [1, 2, 20])
def test_where_the_store_refuses_everybody_the_run_ends_before_all_have_tried(kind, size):
    def fault(task):
        tried.append(task.request.id)
        raise GangFailure(0, kind, "StoreError: QuotaExceeded", usable=True)

    tried, studio = [], Studio(*(request(f"v{n:02d}") for n in range(40)))
    with pytest.raises(Refused, match="40 videos, .*QuotaExceeded. What is committed stays"):
        studio.run(size=size, fault=fault, infra_retries=3)
    assert len(tried) <= max(4, 2 * size) + 1 and len(set(tried)) == len(tried)  # nobody twice
    assert not read_commits(studio.store).dead_letters and status(studio.store).exit_code == 1


def test_refusals_for_a_while_cost_no_video():
    outage = iter(range(5))

    def fault(task):
        if studio.notes.order and next(outage, None) is not None:
            raise GangFailure(0, "store", "StoreError: AccessDenied", usable=True)

    studio = Studio(*(request(name) for name in "abc"))
    summary = studio.run(size=2, fault=fault, retries=0)
    assert (summary.exit_code, len(studio.notes.causes)) == (0, 5)
    sound(studio.store)


def test_what_cannot_be_said_of_an_end_does_not_hide_its_cause():
    studio = Studio(request("a"))
    put = studio.store.put

    def refusing(key, data):
        if key == "_STOPPED":
            raise StoreError("cannot write _STOPPED: AccessDenied")
        put(key, data)

    studio.store.put = refusing
    with pytest.raises(ClusterError, match="3 gangs in a row did not start"):
        studio.run(start_seconds=1e9, start_timeout=50.0)
    assert "could not say in the store that the run has ended: cannot write _STOPPED" in studio.notes.said[-1]
    assert studio.run(until=time.time() - 1).exit_code == 5


def test_at_the_deadline_what_is_started_is_finished_and_the_rest_is_left():
    studio = Studio(*(request(name) for name in "abc"))
    summary = studio.run(seconds=lambda task: 10.0, until=time.time() + 25)
    assert (summary.exit_code, summary.done) == (5, ("a",))
    assert (summary.stopped, summary.left, summary.chunks_left) == ("its deadline came", 2, 13)
    assert studio.notes.order == [("a", 0), ("a", 1), ("b", 0)]
    sound(studio.store)
    seen = status(studio.store)
    assert seen.ended and (seen.exit_code, seen.stopped.why, seen.stopped.videos_left) == (5, "its deadline came", 2)
    summary = studio.run()
    assert (summary.exit_code, summary.rendered, summary.left) == (0, 13, 0)
    assert status(studio.store).stopped is None


def test_after_its_deadline_a_run_starts_nothing():
    studio = Studio(request("a"))
    summary = studio.run(until=time.time() - 1)
    assert (summary.exit_code, summary.left, summary.stopped) == (5, 1, "its deadline came") and not studio.providers


def test_a_jobs_retry_has_the_deadline_of_its_first_start_and_how_it_ended_is_written_down():
    studio, until = Studio(request("a")), time.time() - 1
    assert studio.run(until=until, started_as="night").stopped == "its deadline came"
    holder = read_holder(studio.store, read_owner(studio.store).holder)
    assert (holder.job, holder.until, holder.ended) == ("night", until, "its deadline came")
    studio.store.put(layout.holder_key(holder.name), to_json(replace(holder, ended=None)))  # it was killed
    assert studio.run(until=until + 86_400, started_as="night").stopped == "its deadline came"
    assert studio.run(until=until + 86_400, started_as="night").exit_code == 0


def test_sigterm_lets_segments_under_way_be_committed_within_the_grace():
    studio, before = Studio(*(request(name) for name in "ab")), signal.getsignal(signal.SIGTERM)

    def seconds(task):
        signal.raise_signal(signal.SIGTERM)
        return {"a": 10.0, "b": 100.0}[task.request.id]

    summary = studio.run(size=2, connect=signalled(studio, 2, seconds), grace=30.0)
    assert studio.notes.order == [("a", 0)]
    assert (summary.exit_code, summary.stopped, summary.left) == (5, "SIGTERM came", 2)
    assert studio.run().exit_code == 0
    assert signal.getsignal(signal.SIGTERM) is before


def signalled(studio, size, seconds):
    """The second of the first two tasks brings the signal."""
    asked = []
    return connector(
        studio.providers, size, seconds=lambda task: asked.append(task) or (seconds(task) if len(asked) == 2 else 10.0)
    )


def test_a_gang_that_never_starts_ends_the_run():
    studio = Studio(request("a"))
    with pytest.raises(ClusterError, match="3 gangs in a row did not start; .* did not start within"):
        studio.run(start_seconds=1e9, start_timeout=50.0)
    assert status(studio.store).exit_code == 1 and "did not start" in status(studio.store).stopped.why


@pytest.mark.parametrize("lost, most", [(2, 3), (3, 2), (6, 1)])
def test_gangs_lost_while_they_start_are_tried_again_until_several_in_a_row_fail(lost, most):
    """The first gang starts; of the next `lost` each loses a rank at once, on a cluster with room for three."""
    studio = Studio(*(request(f"v{i}") for i in range(9)))

    @contextmanager
    def connect(work):
        with connector(studio.providers, 3)(work) as provider:
            later = provider.later

            def start(seconds, gang, what):
                number = provider.gangs.index(gang) + 1
                doomed = what == "up" and 1 < number <= 1 + lost
                later(seconds * min(number, 2), gang, "gone" if doomed else what)

            provider.later = start
            yield provider

    assert studio.run(connect=connect).exit_code == 0
    assert len(studio.provider.gangs) == most + lost
    refused = [said for said in studio.notes.said if "did not start" in said]
    assert len(refused) == lost and "its process is gone" in refused[0]


@pytest.mark.parametrize(("gangs", "nodes"), [(1, 1), (3, 1), (3, 3)])
def test_a_hostile_request_delays_the_others_by_no_more_than_its_budget(gangs, nodes):
    """Three that stall every time, kill their gang every time or fail every time; the others take 10 s a segment."""
    good = [request(f"good{i}") for i in range(6)]
    hostile = [request("stalls", 57 + 48 * 50), request("kills", priority=9), request("fails", 57 + 48 * 60)]

    def seconds(task):
        return None if task.request.id == "stalls" else 10.0

    def fault(task):
        if task.request.id == "kills":
            raise GangFailure(0, "infra", "its process is gone")
        if task.request.id == "fails":
            raise GangFailure(0, "work", "ValueError: no", usable=True)

    alone = Studio(*good)
    alone.run(size=gangs, seconds=seconds)
    studio = Studio(*hostile, *good)
    budgets = {"segment_timeout": 60.0, "retries": 2, "infra_retries": 2}
    summary = studio.run(size=gangs, nodes=nodes, seconds=seconds, fault=fault, **budgets)
    assert set(summary.failed) == {"stalls", "kills", "fails"} and len(summary.done) == 6
    attempts, restart = 3, 2.0  # each; seconds to notice and to start a gang anew
    budget = attempts * (60.0 + restart) + attempts * (10.0 + restart) + attempts * 10.0
    assert studio.provider.clock <= alone.provider.clock + budget + 2.0
    sound(studio.store)


def test_a_spoilt_segment_is_rendered_again_without_reuse(monkeypatch):
    tried = []

    def simulated(provider, name, task):
        tried.append((task.request.id, task.segment.index, task.reuse))
        return Flawed(5, "black") if task.segment.index == 1 and task.reuse else render(provider, name, task)

    monkeypatch.setattr("benchmarks.simulated.render", simulated)
    studio = Studio(request("a"))
    summary = studio.run(retries=0, infra_retries=0)
    assert (summary.exit_code, summary.rendered) == (0, 9)
    assert tried == [("a", 0, True), ("a", 1, True), ("a", 1, False)]
    assert studio.notes.causes == ["chunk 5 is black: rendered without reuse"]


def test_a_segment_that_strays_is_rendered_again_within_larger_budgets_and_the_next_one_is_not(monkeypatch):
    tried, larger = [], {None: Raised(0.6, 1, 40), 0.6: Raised(1.0, 2, 90)}

    def simulated(provider, name, task):
        budget = task.raised and task.raised.budget
        tried.append((task.segment.index, budget, task.reuse))
        strays = task.segment.index == 1 and budget in larger
        return Again(5, 2.5, larger[budget]) if strays else render(provider, name, task)

    monkeypatch.setattr("benchmarks.simulated.render", simulated)
    studio = Studio(request("a", TWO_SEGMENTS + TWO_SEGMENTS - ONE_SEGMENT))
    summary = studio.run(retries=0, infra_retries=0)
    assert summary.exit_code == 0
    assert tried[:5] == [(0, None, True), (1, None, True), (1, 0.6, True), (1, 1.0, True), (2, None, True)]
    strays = "chunk 5 strays 2.5 times as far as calibration saw: rendered again"
    assert studio.notes.causes == [f"{strays} within a budget of 0.6", f"{strays} with every step"]


def test_what_ran_of_a_dead_video_is_not_tried_again_on_another_node():
    """The second shot fails while the first one's failure has given the video up, and the other node is sound."""
    tried = []

    def fault(task):
        if task.request.id == "cuts":
            tried.append(task.segment.index)
            raise GangFailure(0, "infra" if task.segment.index else "work", "it broke", usable=True)

    shots = Shot("p", ONE_SEGMENT), Shot("q", ONE_SEGMENT, cut=True)
    cuts = replace(request("cuts", priority=1), shots=shots)
    studio = Studio(cuts, request("good"))
    seconds = {("cuts", 0): 5.0, ("cuts", 1): 10.0}
    summary = studio.run(
        size=2,
        nodes=2,
        seconds=lambda task: seconds.get((task.request.id, task.segment.index), 30.0),
        fault=fault,
        retries=0,
        infra_retries=5,
    )
    assert tried == [0, 1] and (summary.done, set(summary.failed)) == (("good",), {"cuts"})
    assert studio.notes.again == [False, False]


@pytest.mark.parametrize("second", ["work", "infra", "memory"])
def test_of_two_segments_that_give_a_video_up_the_first_one_is_told(second):
    def fault(task):
        number = task.segment.index
        raise GangFailure(0, second if number else "work", f"segment {number} broke", usable=True)

    shots = Shot("p", ONE_SEGMENT), Shot("q", ONE_SEGMENT, cut=True)
    studio = Studio(replace(request("cuts"), shots=shots))
    seconds = {0: 5.0, 1: 10.0}
    summary = studio.run(
        size=2, seconds=lambda task: seconds[task.segment.index], fault=fault, retries=0, infra_retries=0
    )
    assert summary.failed == {"cuts": "segment 0 broke"} and len(studio.notes.causes) >= 2
    letter = read_commits(studio.store).dead_letters["cuts"]
    assert (letter.segment, letter.kind, letter.cause) == (0, "work", "segment 0 broke")
