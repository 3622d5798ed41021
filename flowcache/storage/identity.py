"""What makes a request, and a run, the same one: hashes, totals, and where two differ."""

from collections.abc import Iterable
from typing import Any

from flowcache.records import RenderRequest, Segment
from flowcache.storage.documents import SCHEMA_VERSION, canonical, sha256

MEDIA_SUMS = {"image": "media_sha256", "video": "media_sha256", "end_image": "end_image_sha256"}
TOTALS = ("segments", "chunks", "frames")


def spec_hash(requests: Iterable[RenderRequest], digests: dict[str, str], numerics: dict[str, str]) -> str:
    """sha256 of what is to be rendered with which weights and numerics; the order of the rows does not matter."""
    return hash_of((request.to_dict() for request in requests), digests, numerics)


def hash_of(requests: Iterable[dict[str, Any]], digests: dict[str, str], numerics: dict[str, str]) -> str:
    rows = sorted(map(identity, requests), key=lambda row: row["id"])
    document = {"schema_version": SCHEMA_VERSION, "requests": rows, "models": digests}
    return sha256(canonical(document | ({"numerics": numerics} if numerics else {})))


def identity(request: dict[str, Any]) -> dict[str, Any]:
    """The request as far as it decides on the pixels: not where a picture or video lies, but what is in it."""
    files = {name: request.get(name) and (request.get(sha) or request[name]) for name, sha in MEDIA_SUMS.items()}
    return {**request, **files}


def plan_totals(segments: Iterable[Segment]) -> dict[str, Any]:
    """RunRecord.plan of a planned run: segments, chunks and frames, in all and by video."""
    videos: dict[str, dict[str, int]] = {}
    for segment in segments:
        totals = videos.setdefault(segment.video_id, {"segments": 0, "chunks": 0, "frames": 0})
        totals["segments"] += 1
        totals["chunks"] += segment.chunks
        totals["frames"] += segment.frames
    return summed(videos)


def summed(videos: dict[str, dict[str, int]]) -> dict[str, Any]:
    """RunRecord.plan of these videos."""
    return {"videos": videos, **{name: sum(video[name] for video in videos.values()) for name in TOTALS}}


def same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two requests, of which one may come from the store, give the same pixels under the same labels."""
    old, new = identity(old), identity(new)
    return old == new or canonical(old) == canonical(new)  # tuples become lists in the store


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def canonical_fields(request: dict[str, Any]) -> dict[str, bytes]:
    """Each field as JSON, so that tuples equal the lists that they become in the store."""
    return {name: canonical(value) for name, value in request.items()}
