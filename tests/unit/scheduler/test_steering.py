"""What somebody tells a run through its store: obeyed in order, once, also after a restart; over simulated gangs."""

import io
import threading

import pyarrow.parquet as pq
import pytest

from benchmarks.simulated import PretendedGang
from flowcache.scheduler import inbox
from flowcache.storage import layout
from flowcache.storage.commits import list_commits, read_stopped
from flowcache.storage.control import Command, Taken, acknowledge, give, read_log, read_taken
from flowcache.storage.documents import canonical
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import read_run
from flowcache.storage.status import status
from tests.unit.scheduler.studio import ONE_SEGMENT, Studio, request, sound


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


def test_two_commands_are_other_bytes():
    store = Store("memory://bytes")
    assert canonical(told(store, "pause")) != canonical(told(store, "pause"))
