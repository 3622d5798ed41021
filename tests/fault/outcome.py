"""What a run left behind, less what names the attempt: two runs of the same requests must agree on it."""

import hashlib
import re

import pyarrow.dataset as ds

from flowcache.storage.objects.store import Store
from flowcache.storage.verify import verify

# Which attempt made it, where, and how long it took; everything else is a function of the request.
OF_THE_ATTEMPT = re.compile("attempt|host|gang|started|finished|created|seconds|_at$|parent_sha256|world_size")


def outcome(root) -> dict:
    """Playlists with each chunk's bytes, and both tables."""
    store = Store(str(root))
    report = verify(store)
    assert report.sound, [str(problem) for problem in report.problems]
    media = {}
    for entry in store.list("media"):
        if entry.key.endswith("index.m3u8"):
            folder = entry.key.rpartition("/")[0]
            lines = store.get(entry.key).decode().splitlines()
            chunks = [digest(store, f"{folder}/{line}") for line in lines if line.endswith(".m4s")]
            media[folder] = [digest(store, f"{folder}/init.mp4"), *chunks, *(x for x in lines if x.startswith("#"))]
    return {"media": media, "success": store.find("_SUCCESS")} | {
        name: rows(root, name) for name in ("videos", "chunks")
    }


def digest(store: Store, key: str) -> str:
    return hashlib.sha256(store.get(key)).hexdigest()


def rows(root, table: str) -> list[dict]:
    found = ds.dataset(f"{root}/meta/{table}", partitioning="hive").to_table().to_pylist()
    kept = [{k: plain(v) for k, v in row.items() if not OF_THE_ATTEMPT.search(k)} for row in found]
    return sorted(kept, key=lambda row: (row["video_id"], row.get("chunk", 0)))


def plain(value):
    """A media key without its attempt, wherever it stands in the value."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return re.sub(r"([./])[0-9a-f]{16}[./]", r"\1", value) if isinstance(value, str) else value
