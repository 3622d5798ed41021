"""Removes what lost attempts left behind, and nothing that a marker names or that may still be committed."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flowcache.storage import layout
from flowcache.storage.commits import Commits, read_commits
from flowcache.storage.objects.backend import Entry
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import read_run

GRACE = 24 * 3600.0  # seconds
WORKERS = 32
ATTEMPT = re.compile(r"(?P<number>\d{5,})\.(?P<attempt>(?P<begun>[0-9a-f]{8})[0-9a-f]{8})\.(?:m4s|safetensors)")
LINK = re.compile(r"(?P<expires>\d+)\.m3u8")


@dataclass(frozen=True)
class Collected:
    """Objects and bytes that were removed (or would be), and those of lost attempts that were kept: too young, or
    of a segment that nobody has committed yet."""

    objects: int
    bytes: int
    kept: int


def collect(store: Store, grace: float = GRACE, dry_run: bool = False, now: float | None = None) -> Collected:
    """Remove orphans whose attempt began more than `grace` seconds ago, and links that have expired.

    An object of an attempt goes only when another attempt has committed the segment: since a marker is written once
    and for all, nothing can ever name it any more, however long its worker may yet live. `now`: unix seconds.
    """
    read_run(store)  # StoreError where there is none: the folder of somebody else
    now = time.time() if now is None else now
    listed = [entry for prefix in (layout.MEDIA, layout.STATES) for entry in store.list(prefix)]
    commits = read_commits(store)  # after the listing: what was committed meanwhile is known
    lost = list(orphans(commits, listed))
    gone = [entry for entry, begun in lost if begun is not None and begun < now - grace]
    gone += [entry for entry in store.list(layout.LINKS) if expired(entry, now)]
    if not dry_run:
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(lambda entry: store.delete(entry.key), gone))
    kept = sum(begun is None or begun >= now - grace for _, begun in lost)
    return Collected(len(gone), sum(entry.size for entry in gone), kept)


def orphans(commits: Commits, listed: list[Entry]) -> Iterator[tuple[Entry, float | None]]:
    """Objects of attempts that no marker names, with the moment at which the attempt began (unix seconds); None:
    nobody has committed their segment, so that the attempt may still win."""
    named, winners = set(), set()
    for video_id in commits.markers.keys() | commits.beyond.keys():
        for marker in commits.all(video_id):
            named |= {chunk.key for chunk in marker.chunks} | {marker.state_key}
            winners |= {(layout.MEDIA, video_id, chunk.chunk) for chunk in marker.chunks}
            winners.add((layout.STATES, video_id, marker.segment))
    for entry in listed:
        folder, video_id, name = entry.key.split("/", 2)
        found = ATTEMPT.fullmatch(name)
        if found and entry.key not in named:
            decided = (folder, video_id, int(found["number"])) in winners
            yield entry, int(found["begun"], 16) if decided else None


def expired(entry: Entry, now: float) -> bool:
    found = LINK.fullmatch(entry.key.rpartition("/")[2])
    return bool(found) and int(found["expires"]) < now
