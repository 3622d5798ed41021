"""What somebody else puts into a root is ignored by everything, and named once by verify; gc beside a run."""

import os
import threading
import time

import pytest

from benchmarks.scale import CountingBackend, Memory
from flowcache.errors import StoreError
from flowcache.storage import layout
from flowcache.storage.commits import list_commits, new_attempt, read_commits
from flowcache.storage.gc import UNFINISHED, collect
from flowcache.storage.joined import join_video
from flowcache.storage.keys import named
from flowcache.storage.objects.backend import Entry
from flowcache.storage.objects.store import Store
from flowcache.storage.proof import read_back
from flowcache.storage.runs import read_run
from flowcache.storage.status import status
from flowcache.storage.verify import verify
from tests.unit.scheduler import studio as scheduling
from tests.unit.storage.samples import Studio, outcome, request

FOLDERS = ("_run", "_commits", "_dead_letter", "_state", "_texts", "media", "meta", "_links")
LAID = [
    *FOLDERS,  # zero bytes: the folder itself, as consoles of clouds make it
    *(f"{folder}/cat" for folder in ("_commits", "_state", "media", "_links")),
    *(f"{folder}/{name}" for folder in FOLDERS for name in ("README.md", "notes.txt", ".DS_Store", "a/b/c")),
    *("notes.txt", "media/cat/poster.jpg", "media/cat/1.m4s", "_commits/cat/1.json", "_commits/cat/00001.json.bak"),
    *("_commits/cat/x/00001.json", "_commits/00001.json", "_dead_letter/cat/x.json", "ä/ö"),
    *("_commits/cat/000001.json", "_commits/cat/٠٠٠٠١.json", "media/cat/000001.0a.m4s", "_control/000001.json"),
    *("_state/cat/00000.safetensors", "media/cat/sub/index.m3u8", "_run/old/run.json", "_commits/cat/DONE.json~"),
]  # fmt: skip


def objects() -> Store:
    """As clouds have them: any key is one, with others below it or not."""
    return Memory(CountingBackend(0.0))


def lay(store: Store, keys=LAID) -> set[str]:
    """Foreign objects, unless they can't be beside what is there (folders are no objects on disks)."""
    laid = set()
    for key in keys:
        try:
            store.put(key, b"" if key in FOLDERS or key.count("/") == 1 and key.endswith("/cat") else b"note")
            laid.add(key)
        except StoreError:
            assert "://" not in store.url
    return laid


@pytest.fixture(params=["objects", "folder"])
def root(request, studio, tmp_path):
    store = objects() if request.param == "objects" else Store(str(tmp_path / "out"))
    for entry in studio.store.list():
        store.put(entry.key, studio.store.get(entry.key))
    return Studio(store, studio.requests)


def test_nothing_stumbles_over_what_is_not_ours(root, tmp_path):
    store, before = root.store, outcome(root.store)
    shown = status(store), list_commits(store)
    laid = lay(store)
    assert (status(store), list_commits(store)) == shown and outcome(store) == before
    report = verify(store)
    tables = {key for key in laid if key.startswith("meta/videos")}
    assert report.sound and not tables, report.problems
    assert set(report.foreign) == {key for key in laid if not key.endswith(".DS_Store")}
    assert len(report.foreign) == len(set(report.foreign))
    assert collect(store, grace=0.0, now=time.time() + 10**6).objects == 0
    assert join_video(store, "cat")
    read_back(store, read_run(store), {})
    root.run()  # as a rerun does
    assert outcome(store) == before and all(store.exists(key) for key in laid)


def test_a_run_ignores_them():
    runs = scheduling.Studio(scheduling.request("a"), scheduling.request("b"), store=objects())
    laid = lay(runs.store)
    summary = runs.run()
    assert (summary.exit_code, summary.done) == (0, ("a", "b"))
    assert set(verify(runs.store, decode=False).foreign) == {key for key in laid if not key.endswith(".DS_Store")}


def test_a_note_among_the_tables_breaks_readers_and_stays(studio):
    prefix = layout.table_prefix("chunks", read_run(studio.store).run_id)
    studio.store.put(f"{prefix}/notes.txt", b"note")
    report = verify(studio.store)
    assert [problem.key for problem in report.problems] == [f"{prefix}/notes.txt"] and report.foreign == ()
    studio.store.delete(layout.parts_key(read_run(studio.store).run_id))
    studio.run()
    assert studio.store.exists(f"{prefix}/notes.txt")


def test_every_key_of_ours_is_known(studio):
    assert all(named(entry) for entry in studio.store.list())
    video, attempt = "A.b_c-9", new_attempt()
    ours = {
        layout.run_key("0123456789abcdef"): "run",
        layout.marker_key(video, 123456): "marker",
        layout.done_key(video): "done",
        layout.dead_letter_key("x.json"): "letter",
        layout.state_key(video, 7, attempt): "state",
        layout.text_key("d" * 64, "bfloat16", "e" * 64): "text",
        layout.init_key(video): "init",
        layout.media_key(video, 7, attempt): "media",
        layout.playlist_key(video): "playlist",
        layout.master_key(video): "master",
        layout.part_key("videos", "0123456789abcdef", 3): "part",
        layout.parts_key("0123456789abcdef"): "parts",
        layout.link_key(video, 99): "link",
        layout.SUCCESS: "success",
        layout.STOPPED: "stopped",
        layout.OWNER: "owner",
    }
    assert {key: named(Entry(key, 1)).kind for key in ours} == ours
    found = named(Entry(layout.media_key(video, 7, attempt), 1))
    assert (found.video_id, found.number, found.attempt) == (video, 7, attempt)


def test_unfinished_local_writes_are_collected_once_nobody_can_be_at_them(tmp_path):
    store = Store(str(tmp_path))
    Studio(store, (request("dog", 1),)).run()
    old, young, other = (
        tmp_path / "media/dog" / name for name in (f".{'0' * 16}.part", f".{'1' * 16}.part", ".a.part")
    )
    for path in (old, young, other):
        path.write_bytes(b"half")
    then = time.time() - UNFINISHED - 10
    for path in (old, other):
        os.utime(path, (then, then))
    assert collect(store, grace=0.0, dry_run=True).objects == 1 and old.exists()
    assert collect(store, grace=0.0).objects == 1
    assert [path.exists() for path in (old, young, other)] == [False, True, True]


class Slow(Store):
    """Uploads take their time."""

    def put(self, key: str, data: bytes) -> None:
        time.sleep(0.01)
        super().put(key, data)
        time.sleep(0.01)


def test_gc_beside_a_running_render_takes_nothing_that_lives(tmp_path):
    """No grace, slow uploads, two drivers side by side so that attempts are lost all the time."""
    requests = (request("cat", 4), request("dog", 3))
    calm = Studio(Store(str(tmp_path / "calm")), requests)
    calm.run()
    store, over = Store(str(tmp_path / "out")), threading.Event()
    drivers = [threading.Thread(target=Studio(Slow(store.url), requests).run) for _ in range(2)]
    found = 0
    for driver in drivers:
        driver.start()
    while any(driver.is_alive() for driver in drivers):
        if store.list(layout.RUNS):
            found += collect(store, grace=0.0, now=time.time() + 100).objects
        over.wait(0.005)
    for driver in drivers:
        driver.join()
    found += collect(store, grace=0.0, now=time.time() + 100).objects
    assert found > 0 and outcome(store) == outcome(calm.store)
    report = verify(store)
    assert report.sound and report.counts["orphans"] == 0, report.problems
    assert len(read_commits(store).done) == 2
