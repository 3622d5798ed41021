"""What somebody tells a run through its store: obeyed in order, once, also after a restart; over simulated gangs."""

import io
import random
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from benchmarks.simulated import PretendedGang
from flowcache.scheduler import inbox
from flowcache.scheduler.gang_pool import ClusterError
from flowcache.storage import layout
from flowcache.storage.commits import list_commits, read_stopped
from flowcache.storage.control import Command, Taken, acknowledge, give, read_log, read_taken
from flowcache.storage.documents import canonical
from flowcache.storage.events import read_events
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import read_run
from flowcache.storage.status import status
from tests.soak import operator
from tests.unit.scheduler.studio import ONE_SEGMENT, Studio, brings, request, sound


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(inbox, "LOOK", 0.02)


def told(store: Store, verb: str, *videos: str, **fields) -> Command:
    return give(store, Command(0, verb, "ann@desk", 1.7e9, list(videos), **fields))


def outcomes(store) -> list[tuple[str, str]]:
    log = read_log(store)
    return [(command.verb, log.taken[command.number].outcome) for command in log.commands]


def test_numbers_have_no_gaps_and_nobody_gets_anothers():
    store = Store("memory://numbers")
    threads = [threading.Thread(target=lambda: [told(store, "pause") for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [command.number for command in read_log(store).commands] == list(range(1, 21))


def test_a_command_is_taken_once():
    store = Store("memory://once")
    told(store, "pause")
    taken = Taken(1, "a" * 16, "the driver", 1.0, "obeyed", "yes")
    assert acknowledge(store, taken) and not acknowledge(store, Taken(1, "b" * 16, "other", 2.0, "obeyed", "yes"))
    assert read_taken(store, 1) == taken
    store.put(layout.taken_key(1), b"damaged")
    assert read_log(store).pending and acknowledge(store, taken) and not read_log(store).pending


def test_what_was_told_before_the_start_is_obeyed_first():
    studio = Studio(request("cat"), request("dog"), request("emu"))
    for command in (("cancel", "cat"), ("skip", "dog"), ("resume", "dog")):
        told(studio.store, *command)
    summary = studio.run()
    assert summary.exit_code == 0 and set(summary.done) == {"dog", "emu"} and summary.cancelled.keys() == {"cat"}
    assert outcomes(studio.store) == [("cancel", "obeyed"), ("skip", "obeyed"), ("resume", "obeyed")]
    assert {video for video, _ in studio.notes.order} == {"dog", "emu"}
    found = status(studio.store)
    assert [video.state for video in found.videos] == ["cancelled", "done", "done"] and found.ended
    assert "cancelled by ann@desk, 2023-11-14 22:13:20 UTC (command 1)" == found.videos[0].error
    assert not studio.store.exists(layout.SUCCESS) and "1 videos are cancelled" in read_stopped(studio.store).why
    sound(studio.store)


def test_a_later_render_keeps_it_until_somebody_wants_it_again():
    studio = Studio(request("cat"), request("dog"))
    told(studio.store, "cancel", "cat")
    studio.run()
    assert studio.run(retry_failed=True).exit_code == 0 and "cat" not in list_commits(studio.store).segments
    told(studio.store, "resume", "cat")
    assert set(studio.run().done) == {"cat", "dog"} and studio.store.exists(layout.SUCCESS)
    assert len(read_log(studio.store).taken) == 2 and sound(studio.store)["done"] == 2


def test_a_cancelled_videos_segment_ends_and_what_is_committed_stays():
    studio = Studio(request("cat"))
    ended = []

    def seconds(task):
        if task.segment.index == 1:  # the second one would take for ever
            told(studio.store, "cancel", "cat")
            return None
        return 1.0

    class Listener(type(studio.notes)):
        def on(self, event):
            super().on(event)
            ended.append(event)

    studio.notes = Listener()
    summary = studio.run(seconds=seconds, segment_timeout=10**9)
    assert summary.exit_code == 0 and summary.cancelled.keys() == {"cat"} and not summary.failed
    assert studio.notes.order == [("cat", 0)] and studio.notes.causes == ["the video was cancelled"]
    assert list_commits(studio.store).segments == {"cat": [0]}
    told(studio.store, "resume", "cat")
    assert studio.run().done == ("cat",) and studio.notes.order[-1] == ("cat", 1) and sound(studio.store)["done"] == 1


def test_a_gang_that_does_not_end_its_task_is_made_anew(monkeypatch):
    studio = Studio(request("cat"), request("dog", ONE_SEGMENT))

    def seconds(task):
        if task.segment.video_id == "cat":
            told(studio.store, "cancel", "cat")
            return None
        return 1.0

    monkeypatch.setattr(PretendedGang, "abandon", lambda self: False)
    summary = studio.run(seconds=seconds, segment_timeout=10**9)
    assert summary.done == ("dog",) and len(studio.provider.gangs) == 2


def test_pause_holds_over_a_restart_until_resume():
    studio = Studio(request("cat"))
    told(studio.store, "pause")
    stop = threading.Timer(0.3, lambda: told(studio.store, "stop"))
    stop.start()
    first = studio.run()
    stop.join()
    assert first.exit_code == 5 and "command 2 (stop) of ann@desk" in first.stopped and not studio.notes.order
    assert status(studio.store).paused == "command 1 (pause) of ann@desk"
    again = threading.Timer(0.3, lambda: told(studio.store, "resume"))
    again.start()
    assert studio.run().done == ("cat",)
    again.join()
    assert status(studio.store).paused is None
    assert outcomes(studio.store) == [("pause", "obeyed"), ("stop", "obeyed"), ("resume", "obeyed")]


def test_priorities_decide_what_comes_next():
    studio = Studio(*(request(name, ONE_SEGMENT) for name in ("ant", "bee", "cat")))
    told(studio.store, "prioritise", "cat", priority=7)
    told(studio.store, "prioritise", "ant", priority=-7)
    studio.run()
    assert [name for name, _ in studio.notes.order] == ["cat", "bee", "ant"]


def test_commands_are_a_table():
    studio = Studio(request("cat"))
    told(studio.store, "prioritise", "cat", priority=7)
    studio.store.put(layout.command_key(2), b"damaged")
    studio.run()
    key = layout.commands_key(read_run(studio.store).run_id)
    rows = pq.read_table(io.BytesIO(studio.store.get(key))).to_pylist()
    assert [(row["number"], row["command"], row["outcome"]) for row in rows] == [
        (1, "prioritise", "obeyed"), (2, "damaged", "refused"),
    ]  # fmt: skip
    assert rows[0]["videos"] == ["cat"] and rows[0]["message"] == "of priority 7: cat" and "simulated" not in str(rows)
    sound(studio.store)
    studio.store.put(key, b"x")
    with pytest.raises(AssertionError, match="no readable Parquet"):
        sound(studio.store)


def test_commands_of_ids_that_are_done_or_given_up_say_so():
    studio = Studio(request("cat", ONE_SEGMENT))
    studio.run()
    told(studio.store, "cancel", "cat", "nobody")
    studio.run()
    assert read_taken(studio.store, 1).message == "done: cat; no video of the run: nobody"
    assert status(studio.store).videos[0].state == "done"


def test_rows_are_added_while_the_run_goes_on_and_stay_added():
    cat, dog = request("cat", ONE_SEGMENT), request("dog")
    studio = Studio(cat)
    told(studio.store, "add", manifest="_control/x", name="more.jsonl")
    summary = studio.run(plan_rows=brings(cat, dog))
    assert set(summary.done) == {"cat", "dog"} and read_run(studio.store).grown[1].added == ["dog"]
    assert read_taken(studio.store, 1).videos == ["cat", "dog"] and studio.store.exists(layout.SUCCESS)
    assert sound(studio.store)["done"] == 2
    assert studio.run(plan_rows=brings(dog)).exit_code == 0 and len(read_run(studio.store).grown) == 2


def test_what_was_added_is_rendered_by_the_next_driver_too():
    cat, dog = request("cat", ONE_SEGMENT), request("dog")
    studio = Studio(cat)
    told(studio.store, "add", manifest="_control/x")
    told(studio.store, "stop")
    assert studio.run(plan_rows=brings(dog)).exit_code == 5 and not studio.notes.order
    assert set(studio.run(plan_rows=brings(dog)).done) == {"cat", "dog"}


def test_rows_that_differ_from_what_is_rendered_are_refused_field_by_field():
    studio = Studio(request("cat", ONE_SEGMENT))
    studio.run()
    told(studio.store, "add", manifest="_control/x")
    studio.run(plan_rows=brings(replace(request("cat", ONE_SEGMENT), seed=5), request("dog")))
    taken = read_taken(studio.store, 1)
    assert taken.outcome == "refused" and "more.jsonl row 1: seed: got 5" in taken.problems[0]
    assert not read_run(studio.store).grown and "dog" not in list_commits(studio.store).segments


def test_a_row_that_waits_is_corrected_and_labels_follow():
    first, cat = request("first", ONE_SEGMENT, priority=9), request("cat")
    studio = Studio(first, cat)
    told(studio.store, "add", manifest="_control/x")
    more = brings(replace(cat, seed=8), replace(first, labels={"team": "a"}))
    assert studio.run(plan_rows=more).exit_code == 0 and read_taken(studio.store, 1).outcome == "obeyed"
    run = read_run(studio.store)
    asked = {one["id"]: one for one in run.requests}
    assert run.grown[1].corrected == ["cat"] and asked["cat"]["seed"] == 8 and asked["first"]["labels"] == {"team": "a"}
    assert sound(studio.store)["done"] == 2


def test_a_row_of_which_something_is_under_way_is_refused():
    cat = request("cat", ONE_SEGMENT)
    studio = Studio(cat)

    def seconds(task):
        told(studio.store, "add", manifest="_control/x")
        return 10.0

    more = brings(replace(cat, seed=8))
    assert studio.run(plan_rows=more, seconds=seconds).done == ("cat",)
    assert "seed: got 8" in read_taken(studio.store, 1).problems[0] and not read_run(studio.store).grown
    sound(studio.store)


class Killed(BaseException):
    """The driver is gone in the middle of something."""


@pytest.mark.long
def test_of_a_hundred_commands_none_is_lost_or_done_twice_though_drivers_die():
    draw = random.Random(11)
    studio = Studio(*(request(f"v{number}") for number in range(6)))

    def fault(task):
        time.sleep(0.03)
        if draw.random() < 0.15:
            raise Killed

    somebody, drivers = (
        operator.Operator(studio.store, [one.id for one in studio.requests], 100, every=0.06, seed=11),
        0,
    )
    try:
        while not drivers or somebody.owes() or len(list_commits(studio.store).done) < 6:
            somebody.tend()
            drivers += 1
            with suppress(Killed):
                studio.run(2, fault=fault)
    finally:
        somebody.close()
    assert somebody.check()["commands"] == 102 and drivers > 2
    assert sound(studio.store)["done"] == 6 and not list_commits(studio.store).withheld


def test_events_of_a_run_are_in_its_store():
    studio = Studio(request("cat", ONE_SEGMENT), request("dog", ONE_SEGMENT))
    told(studio.store, "cancel", "dog")
    studio.run()
    seen = set()
    events = read_events(studio.store, seen)
    assert [(one["event"], one.get("video")) for one in events] == [
        ("run started", None), ("video cancelled", "dog"), ("command taken", None), ("video done", "cat"),
        ("run ended", None),
    ]  # fmt: skip
    assert events[-1]["exit_code"] == 0 and read_events(studio.store, seen) == []
    studio.run()  # neither is told once more
    assert [one["event"] for one in read_events(studio.store, seen)] == ["run started", "run ended"]


def test_an_end_with_an_error_is_an_event_too():
    studio = Studio(request("cat", ONE_SEGMENT))
    with pytest.raises(ClusterError):
        studio.run(connect=contextmanager(lambda work: (_ for _ in ()).throw(ClusterError("no room"))))
    last = read_events(studio.store, set())[-1]
    assert (last["event"], last["exit_code"], last["why"]) == ("run ended", 1, "no room")


def test_two_commands_are_other_bytes():
    store = Store("memory://bytes")
    assert canonical(told(store, "pause")) != canonical(told(store, "pause"))
