"""A function of the user's own over each finished video: when it runs, how often, and what stays of it."""

import sys
import time

import pyarrow.parquet as pq
import pytest

from flowcache.errors import StoreError
from flowcache.inputs.segments import plan
from flowcache.progress.counts import Counts
from flowcache.scheduler.driver import Driver
from flowcache.scheduler.joining import Rows
from flowcache.scheduler.protocols import GangFailure
from flowcache.storage import layout
from flowcache.storage.commits import list_commits, read_stopped
from flowcache.storage.control import Command, give
from flowcache.storage.finish_marker import read_finishes
from flowcache.storage.gc import collect
from flowcache.storage.growth import Terms
from flowcache.storage.repair import repair
from flowcache.storage.runs import new_run, read_run
from flowcache.storage.status import status
from flowcache.storage.verify import verify
from tests.unit.scheduler.studio import MODEL, ONE_SEGMENT, SPEC, Studio, request, sound

USERS = """
calls, bad = [], set()
def note(video):
    calls.append(video.id)
    if video.id in bad:
        raise ValueError("no taste for it")
    (video.folder / "note.txt").write_text(f"{video.id} {video.frames} {video.width}x{video.height}")
    (video.folder / "more").mkdir()
    (video.folder / "more" / "empty.bin").touch()
def other(video):
    (video.folder / "other.txt").write_text(video.request["id"])
def nothing(video):
    pass
def hidden(video):
    (video.folder / ".secret").write_text("x")
"""
NOTE, OTHER = "users_finish:note", "users_finish:other"


@pytest.fixture(autouse=True)
def users(tmp_path, monkeypatch):
    (tmp_path / "users_finish.py").write_text(USERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield __import__("users_finish")
    sys.modules.pop("users_finish")


def made(store) -> dict[str, dict[str, bytes]]:
    """By video and function, what it wrote, by the name of the file."""
    found, faults = read_finishes(store, list_commits(store).finished)
    assert not faults
    return {
        f"{video} {one.finish}": {file.name: store.get(file.key) for file in one.files}
        for video, markers in found.items()
        for one in markers
    }


def files_of(name: str) -> dict[str, bytes]:
    return {"more/empty.bin": b"", "note.txt": f"{name} 105 64x64".encode()}


def test_each_video_is_finished_once_after_its_last_segment(users):
    studio = Studio(request("cat"), request("dog"))
    counts = Counts()
    told = []
    on = studio.notes.on
    studio.notes.on = lambda event: (on(event), counts.on(event), told.append(type(event).__name__))
    summary = studio.run(finish=NOTE)
    assert summary.exit_code == 0 and sorted(users.calls) == ["cat", "dog"]
    assert made(studio.store) == {f"{name} {NOTE}": files_of(name) for name in ("cat", "dog")}
    assert told.count("VideoFinished") == told.count("VideoDone") == 2
    assert counts.finished_by == counts.finished_videos == 2 and not counts.work and "2 finished" in counts.summary()
    assert studio.store.exists(layout.SUCCESS)
    assert sound(studio.store)["orphans"] == 0
    found = status(studio.store)
    assert found.finished_by == {NOTE: 2} and found.ended and found.exit_code == 0
    (part,) = studio.store.list(layout.table_prefix("videos", read_run(studio.store).run_id))
    rows = pq.read_table(__import__("io").BytesIO(studio.store.get(part.key))).to_pylist()
    assert [[file["file"] for file in row["finishes"]] for row in rows] == [["more/empty.bin", "note.txt"]] * 2
    assert studio.run(finish=NOTE).exit_code == 0 and len(users.calls) == 2  # nothing is left to do


def test_a_gang_finishes_its_video_before_it_begins_another(users, monkeypatch):
    studio, order = Studio(*(request(name, ONE_SEGMENT) for name in ("cat", "dog", "emu"))), []
    handle = Driver._handle
    monkeypatch.setattr(Driver, "_handle", lambda self, gang, task, event: (
        order.append((task.segment.video_id, task.finish)), handle(self, gang, task, event)))  # fmt: skip
    studio.run(finish=NOTE)
    videos = [video for video, finish in dict.fromkeys(order)]
    assert videos == [name for name in dict.fromkeys(videos) for _ in range(2)]


def test_another_function_runs_on_what_is_done_and_the_first_ones_files_stay(users):
    studio = Studio(request("cat"), request("dog"))
    assert studio.run().exit_code == 0 and not users.calls
    assert studio.store.exists(layout.SUCCESS)
    rendered = studio.notes.order.copy()
    assert studio.run(finish=OTHER).exit_code == 0
    assert studio.notes.order == rendered  # no segment is rendered again
    assert studio.run(finish=NOTE).exit_code == 0 and studio.run().exit_code == 0
    assert made(studio.store).keys() == {f"{video} {one}" for video in ("cat", "dog") for one in (NOTE, OTHER)}
    assert studio.store.exists(layout.SUCCESS)
    sound(studio.store)


def test_a_finish_that_fails_for_good_is_told_and_the_video_stays_done(users):
    studio = Studio(request("cat"), request("dog"))
    users.bad.add("cat")
    summary = studio.run(finish=NOTE, retries=2)
    assert users.calls.count("cat") == 3
    assert summary.exit_code == 3 and set(summary.done) == {"cat", "dog"}
    assert summary.failed == {"cat": f"FinishFailed: {NOTE}: ValueError: no taste for it"}
    assert not studio.store.exists(layout.SUCCESS)
    letter = list_commits(studio.store).dead_letters["cat"]
    assert (letter.kind, letter.finish, letter.segment, letter.attempts) == ("finish", NOTE, None, 3)
    found = status(studio.store)
    assert [(video.state, video.unfinished) for video in found.videos] == [("done", True), ("done", False)]
    assert found.ended and found.exit_code == 3 and "no taste" in found.videos[0].error
    sound(studio.store)
    assert studio.run(finish=NOTE).exit_code == 3 and users.calls.count("cat") == 3  # as of any dead letter
    users.bad.clear()
    assert studio.run(finish=NOTE, retry_failed=True).exit_code == 0
    assert made(studio.store)[f"cat {NOTE}"] == files_of("cat") and studio.store.exists(layout.SUCCESS)
    sound(studio.store)


@pytest.mark.parametrize("then", [None, OTHER])
def test_who_asks_for_another_finish_or_none_is_not_told_of_the_first_ones_failure(users, then):
    studio = Studio(request("cat"))
    users.bad.add("cat")
    assert studio.run(finish=NOTE, retries=0).exit_code == 3
    assert studio.run(finish=then).exit_code == 0 and studio.store.exists(layout.SUCCESS)
    assert not list_commits(studio.store).dead_letters
    sound(studio.store)


def test_a_gang_that_is_lost_in_it_is_replaced_and_nothing_is_kept_twice(users):
    studio, lost = Studio(request("cat")), []

    def dies(task):
        if task.finish and len(lost) < 2:
            lost.append(task)
            raise GangFailure(0, "infra", "its process is gone")

    assert studio.run(finish=NOTE, fault=dies).exit_code == 0
    assert len(lost) == 2 and users.calls == ["cat"] and len(studio.provider.gangs) == 3
    assert made(studio.store) == {f"cat {NOTE}": files_of("cat")}


def test_a_store_that_refuses_its_files_is_no_fault_of_the_function(users, monkeypatch):
    studio, refused = Studio(request("cat")), []
    put = type(studio.store).put

    def refusing(self, key, data):
        if "/finish/" in key and len(refused) < 3:
            refused.append(key)
            raise StoreError("no room")
        return put(self, key, data)

    monkeypatch.setattr(type(studio.store), "put", refusing)
    assert studio.run(finish=NOTE, retries=0).exit_code == 0
    assert len(refused) == 3 and made(studio.store)[f"cat {NOTE}"] == files_of("cat")


def test_a_driver_that_ends_between_video_and_finish_leaves_it_to_the_next(users):
    studio = Studio(request("cat"))
    hung = studio.run(finish=NOTE, seconds=lambda task: None if task.finish else 1.0, until=time.time() + 2,
                      segment_timeout=30.0, infra_retries=0)  # fmt: skip
    assert hung.exit_code in (3, 5) and "cat" in hung.done
    assert not studio.store.exists(layout.SUCCESS)
    assert studio.run(finish=NOTE, retry_failed=True).exit_code == 0 and users.calls == ["cat"]
    assert studio.store.exists(layout.SUCCESS) and read_stopped(studio.store) is None


def test_a_video_that_is_cancelled_in_its_finish_stays_done(users):
    studio = Studio(request("cat"), request("dog"))
    studio.run()
    give(studio.store, Command(0, "cancel", "ann@desk", 1.7e9, ["cat"]))
    assert studio.run(finish=NOTE).exit_code == 0
    assert users.calls == ["dog"] and [video.state for video in status(studio.store).videos] == ["done", "done"]
    sound(studio.store)


@pytest.mark.parametrize(("name", "said"), [("hidden", "it wrote '.secret'"), ("gone", "has no function gone")])
def test_what_can_not_be_stored_or_called_says_so(name, said):
    summary = Studio(request("cat", ONE_SEGMENT)).run(finish=f"users_finish:{name}", retries=0)
    assert said in summary.failed["cat"]


def test_a_function_may_write_nothing():
    studio = Studio(request("cat", ONE_SEGMENT))
    assert studio.run(finish="users_finish:nothing").exit_code == 0
    assert made(studio.store) == {"cat users_finish:nothing": {}}
    sound(studio.store)


@pytest.mark.parametrize("damage", ["lost", "changed", "commit", "moved"])
def test_damage_is_found_withdrawn_and_made_again(users, damage):
    studio = Studio(request("cat"), request("dog"))
    studio.run(finish=NOTE)
    store = studio.store
    (marker,) = read_finishes(store, {"cat": [NOTE]})[0]["cat"]
    file, key = marker.files[1], layout.finish_key("cat", NOTE)
    if damage == "lost":
        store.delete(file.key)
    elif damage == "changed":
        store.put(file.key, b"C" + store.get(file.key)[1:])
    elif damage == "commit":
        store.put(key, store.get(key)[:-9])
    else:
        store.put(key, store.get(layout.finish_key("dog", NOTE)))
    problems = [problem for problem in verify(store, decode=False).problems if "meta/" not in (problem.key or "")]
    assert problems and all(problem.video_id == "cat" for problem in problems), problems
    repaired = repair(store, decode=False)
    assert not repaired.left and not repaired.withdrawn
    sound(store)
    assert studio.run(finish=NOTE).exit_code == 0 and users.calls.count("cat") == 2
    assert made(store) == {f"{name} {NOTE}": files_of(name) for name in ("cat", "dog")}
    sound(store)


def test_a_finish_goes_with_the_chunks_that_it_was_made_of(users):
    studio = Studio(request("cat"))
    studio.run(finish=NOTE)
    chunk = next(entry.key for entry in studio.store.list("media/cat") if entry.key.endswith(".m4s"))
    studio.store.delete(chunk)
    repair(studio.store, decode=False)
    assert not list_commits(studio.store).finished and not list_commits(studio.store).done
    assert studio.run(finish=NOTE).exit_code == 0 and users.calls == ["cat", "cat"]
    counts = sound(studio.store)
    assert counts["orphans"] > 2
    assert collect(studio.store, 0.0, now=time.time() + 9).objects > 2
    assert sound(studio.store)["orphans"] == 0 and made(studio.store)[f"cat {NOTE}"] == files_of("cat")


def test_files_of_an_attempt_that_may_still_win_are_not_collected(users):
    studio = Studio(request("cat"))
    studio.run()
    key = layout.finished_key("cat", NOTE, layout.new_attempt(), "note.txt")
    studio.store.put(key, b"on its way")
    assert collect(studio.store, 0.0, now=time.time() + 9).kept == 1 and studio.store.exists(key)
    studio.run(finish=NOTE)
    assert collect(studio.store, 0.0, now=time.time() + 9).objects == 1 and not studio.store.exists(key)


def test_rows_that_are_added_are_finished_too_if_need_be_by_the_next_driver(users):
    cat, dog = request("cat", ONE_SEGMENT), request("dog", ONE_SEGMENT)
    studio = Studio(cat)
    give(studio.store, Command(0, "add", "ann@desk", 1.7e9, manifest="_control/x", name="more.jsonl"))

    def more(command):
        record = new_run([dog], {MODEL: SPEC.digest}, list(plan(dog, SPEC)), "0")
        return Rows(record, [dog], {MODEL: SPEC}, Terms(manifest="more.jsonl"))

    def hangs(task):
        return None if task.finish and task.request.id == "dog" else 1.0

    first = studio.run(finish=NOTE, plan_rows=more, seconds=hangs, segment_timeout=30.0, size=2, until=time.time() + 20)
    assert first.exit_code == 5 and set(first.done) == {"cat", "dog"} and users.calls == ["cat"]
    assert studio.run(finish=NOTE, plan_rows=more).exit_code == 0
    assert users.calls == ["cat", "dog"] and studio.store.exists(layout.SUCCESS)
    sound(studio.store)


def test_a_render_of_a_part_leaves_the_others_unfinished(users):
    studio = Studio(request("cat"), request("dog"))
    studio.run()
    asked, studio.requests = studio.requests, studio.requests[:1]
    studio.segments = [segment for segment in studio.segments if segment.video_id == "cat"]
    assert studio.run(finish=NOTE, terms=Terms(part=True)).exit_code == 0
    assert users.calls == ["cat"] and list_commits(studio.store).finished.keys() == {"cat"}
    assert asked
    sound(studio.store)
