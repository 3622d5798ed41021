"""Folders as consoles of clouds mark them (zero bytes, a slash at the end of the name) and notes, on S3 servers."""

from flowcache.storage.gc import collect
from flowcache.storage.status import status
from flowcache.storage.verify import verify
from tests.unit.scheduler.studio import Studio, request

FOLDERS = (
    "",
    "_run/",
    "_commits/",
    "_commits/a/",
    "media/",
    "media/a/",
    "meta/",
    "meta/videos/",
    "_dead_letter/",
    "_state/a/",
)


def test_marked_folders_and_notes_are_ignored(server):
    studio = Studio(request("a"), request("b"), store=server.store())
    fs, root = studio.store.backend.fs, studio.store.backend.root
    bucket, _, prefix = root.partition("/")
    for folder in FOLDERS:
        fs.call_s3("put_object", Bucket=bucket, Key=f"{prefix}/{folder}", Body=b"")
    for note in ("README.md", "_commits/notes.txt", "_dead_letter/notes.txt", "media/a/.DS_Store"):
        studio.store.put(note, b"note")
    assert studio.run().exit_code == 0 and studio.run().exit_code == 0
    report = verify(studio.store, decode=False)
    assert report.sound, report.problems
    assert {"README.md", "_commits/notes.txt", "_dead_letter/notes.txt"} <= set(report.foreign)
    assert status(studio.store).count("done") == 2
    assert collect(studio.store, grace=0.0).objects == 0
