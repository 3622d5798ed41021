"""A fault before and after every single operation on the store, reads too, of a run by the real driver.

Gangs are simulated, so that a whole run takes milliseconds, but they write what workers write through the same code.
The process dies there, or the request fails and is tried again, or only its answer is lost.
"""

import io
import itertools
from collections import Counter

import pyarrow.parquet as pq
import pytest

from benchmarks.scale import CountingBackend, Memory
from flowcache.scheduler import store_writer as publisher
from flowcache.scheduler.protocols import GangFailure
from flowcache.storage import layout, ownership
from flowcache.storage.commits import read_commits
from flowcache.storage.documents import sha256
from flowcache.storage.finish_marker import read_finishes
from flowcache.storage.objects import store as objects
from flowcache.storage.verify import verify
from tests.fault.inline import Crash, Inline
from tests.unit.scheduler.studio import ONE_SEGMENT, TWO_SEGMENTS, Studio, request

REQUESTS = (request("long", TWO_SEGMENTS), request("short", ONE_SEGMENT), request("poisoned", ONE_SEGMENT))


class Passing(OSError):
    """A request that fails, and works when it is tried again."""


class FaultyBackend(CountingBackend):
    """Raises `fault` before or after the operation `point` (from 0). A dead process does nothing any more."""

    def __init__(self, held: dict[str, bytes], point: int, after: bool, fault: type[BaseException], watch=None):
        super().__init__(0.0)
        self.objects, self.point, self.after, self.fault = held, point, after, fault
        self.count, self.dead, self.watch = 0, False, watch

    def passing(self, fault: Exception) -> bool:
        return isinstance(fault, Passing)

    def around(self, operation):
        if self.dead:
            raise Crash
        number, self.count = self.count, self.count + 1
        if number == self.point and not self.after:
            self.fail()
        try:
            result = operation()
        finally:  # a refused create too has an answer that can be lost
            if number == self.point and self.after:
                self.fail()
        if self.watch:
            self.watch()
        return result

    def fail(self):
        self.dead = self.fault is Crash
        raise self.fault("injected")

    def put(self, key, data):
        return self.around(lambda: super(FaultyBackend, self).put(key, data))

    def create(self, key, data):
        return self.around(lambda: super(FaultyBackend, self).create(key, data))

    def get(self, key):
        return self.around(lambda: super(FaultyBackend, self).get(key))

    def size(self, key):
        return self.around(lambda: super(FaultyBackend, self).size(key))

    def list(self, prefix):
        return self.around(lambda: super(FaultyBackend, self).list(prefix))

    def delete(self, key):
        return self.around(lambda: super(FaultyBackend, self).delete(key))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(objects, "RETRY_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(publisher, "ThreadPoolExecutor", Inline)


def render(held: dict[str, bytes], point: int = -1, after: bool = False, fault=Crash, watch=None, **options):
    backend = FaultyBackend(held, point, after, fault, watch)
    studio = Studio(*REQUESTS, store=Memory(backend))

    def poison(task):
        if task.request.id == "poisoned" and "retry_failed" not in options:
            raise GangFailure(0, "work", "ValueError: poisoned", usable=True)

    return studio.run(size=2, retries=0, fault=poison, **options), backend.count


def reading(held: dict[str, bytes]) -> Memory:
    return Memory(FaultyBackend(held, -1, False, Crash))


def outcome(held: dict[str, bytes]) -> dict:
    """What must be the same after any interruption: media in order, what is done and dead, rows without the attempt."""
    store = reading(held)
    commits = read_commits(store)
    return {
        "media": {
            name: [store.get(c.key) for m in markers for c in m.chunks] for name, markers in commits.markers.items()
        },
        "playlists": {name: len(store.get(layout.playlist_key(name)).splitlines()) for name in commits.markers},
        "done": commits.done,
        "dead": {name: letter.cause for name, letter in commits.dead_letters.items()},
        "finishes": finishes(store, commits),
        "chunks": [(row["video_id"], row["chunk"], row["sha256"]) for row in rows(store, "chunks")],
        "videos": [
            (row["video_id"], row["status"], row["frames"], [file["sha256"] for file in row["finishes"] or ()])
            for row in rows(store, "videos")
        ],
    }


def finishes(store, commits) -> dict:
    """By video, what its finish wrote; a commit that can't be read has no place."""
    found, faults = read_finishes(store, commits.finished)
    assert not faults
    return {
        name: [(file.name, store.get(file.key)) for one in made for file in one.files] for name, made in found.items()
    }


def rows(store, table: str) -> list[dict]:
    found = [pq.read_table(io.BytesIO(store.get(e.key))).to_pylist() for e in store.list(f"{layout.META}/{table}")]
    return sorted(itertools.chain(*found), key=lambda row: (row["video_id"], row.get("chunk")))


def check(held: dict[str, bytes]) -> None:
    store = reading(held)
    if store.list(layout.RUNS):
        report = verify(store, decode=False)
        assert report.sound, report.problems


@pytest.fixture(scope="module")
def undisturbed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publisher, "ThreadPoolExecutor", Inline)
        patch.setattr(ownership, "BEAT", 600.0)  # signs of life of a slow machine are no operations that all runs make
        held: dict[str, bytes] = {}
        summary, operations = render(held)
    assert summary.exit_code == 3 and operations > 40
    return outcome(held), operations


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_process_dies_at_each_operation_and_a_rerun_ends_the_same(undisturbed, after):
    wanted, operations = undisturbed
    for point in range(operations):
        held: dict[str, bytes] = {}
        with pytest.raises(Crash):
            render(held, point, after)
        check(held)
        render(held)
        assert outcome(held) == wanted, point
        check(held)


@pytest.mark.parametrize("after", [False, True], ids=["refused", "lost answer"])
def test_a_request_that_fails_once_is_not_noticed(undisturbed, after):
    wanted, operations = undisturbed
    for point in range(operations):
        held: dict[str, bytes] = {}
        summary, _ = render(held, point, after, Passing)
        assert summary.exit_code == 3 and outcome(held) == wanted, point
        check(held)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_process_dies_at_each_operation_of_a_rerun_that_replaces_tables(after):
    first: dict[str, bytes] = {}
    render(first)
    held = dict(first)
    summary, operations = render(held, retry_failed=True)
    assert summary.exit_code == 0 and operations > 20
    wanted = outcome(held)
    assert wanted["done"] == {"long", "short", "poisoned"} and not wanted["dead"]
    for point in range(operations):
        held = dict(first)
        with pytest.raises(Crash):
            render(held, point, after, retry_failed=True)
        check(held)
        render(held, retry_failed=True)
        assert outcome(held) == wanted, point
        check(held)


def finish(video):
    """Called by name, once for each attempt."""
    (video.folder / "a.txt").write_text(f"{video.id} {video.frames}")
    (video.folder / "b.txt").write_text("b")


def test_the_process_dies_after_each_operation_of_finishes_and_a_rerun_ends_the_same():
    first: dict[str, bytes] = {}
    render(first, retry_failed=True)
    asked, held = {"finish": f"{__name__}:finish", "retry_failed": True}, dict(first)
    summary, operations = render(held, **asked)
    wanted = outcome(held)
    assert summary.exit_code == 0 and summary.rendered == 0 and operations > 30
    assert wanted["finishes"]["long"] == [("a.txt", b"long 105"), ("b.txt", b"b")] and len(wanted["finishes"]) == 3
    for point in range(operations):
        held = dict(first)
        with pytest.raises(Crash):
            render(held, point, True, **asked)
        check(held)
        render(held, **asked)
        assert outcome(held) == wanted, point
        check(held)


def test_readers_in_between_never_see_half_a_segment_nor_a_row_twice():
    """Of a run, and of a rerun that replaces what the first one wrote: after each operation everything is read."""
    held: dict[str, bytes] = {}
    seen = []

    def read():
        store = reading(held)
        if not store.list(layout.RUNS):
            return
        check(held)
        for marker in (marker for found in read_commits(store).markers.values() for marker in found):
            assert all(sha256(store.get(chunk.key)) == chunk.sha256 for chunk in marker.chunks)
        for table in ("videos", "chunks"):
            identities = [(row["video_id"], row.get("chunk")) for row in rows(store, table)]
            assert len(identities) == len(set(identities))
        segments = Counter((row["video_id"], row["segment"]) for row in rows(store, "chunks"))
        assert all(count == {0: 5, 1: 4}[segment] for (_, segment), count in segments.items())
        seen.append(sum(segments.values()))

    render(held, watch=read)
    assert seen[-1] == 14
    render(held, watch=read, retry_failed=True)
    assert seen == sorted(seen) and seen[-1] == 19
