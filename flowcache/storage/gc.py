"""Removes what lost attempts left behind, and nothing that a marker names or that may still be committed."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flowcache.storage import layout
from flowcache.storage.commits import Commits, read_commits
from flowcache.storage.finish_marker import FinishMarker, read_finishes
from flowcache.storage.finishes import orphans as unfinished
from flowcache.storage.keys import Named, listed
from flowcache.storage.objects.backend import Entry
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import read_run

Finishes = Mapping[str, Sequence[FinishMarker]]
GRACE = 24 * 3600.0  # seconds
WORKERS = 32
UNFINISHED = 3600.0  # seconds that a write to a file that is not yet in place may take, whatever the grace
ATTEMPT = re.compile(r"[0-9a-f]{16}")  # begins with its moment


@dataclass(frozen=True)
class Collected:
    """Objects and bytes that were removed (or would be), and those of lost attempts that were kept: too young, or
    of a segment that nobody has committed yet."""

    objects: int
    bytes: int
    kept: int


def collect(store: Store, grace: float = GRACE, dry_run: bool = False, now: float | None = None) -> Collected:
    """Remove orphans whose attempt began more than `grace` seconds ago, links that have expired, and local writes that
    a dead process left unfinished.

    An object of an attempt goes only when another attempt has committed the segment: since a marker is written once
    and for all, nothing can ever name it any more, however long its worker may yet live. `now`: unix seconds.
    """
    read_run(store)  # StoreError where there is none: the folder of somebody else
    now = time.time() if now is None else now
    kinds = ("media", "state", "finished")
    there = [one for prefix in (layout.MEDIA, layout.STATES) for one in listed(store, prefix, *kinds)]
    commits = read_commits(store)  # after the listing: what was committed meanwhile is known
    finishes, unread = read_finishes(store, commits.finished)
    if unread:  # whose files may be anybody's
        there = [one for one in there if one.kind != "finished"]
    lost = list(orphans(commits, finishes, there))
    gone = [entry for entry, begun in lost if begun is not None and begun < now - grace]
    gone += [link.entry for link in listed(store, layout.LINKS) if link.number < now]
    gone += store.leftovers(now - max(grace, UNFINISHED))
    if not dry_run:
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(lambda entry: store.delete(entry.key), gone))
    kept = sum(begun is None or begun >= now - grace for _, begun in lost)
    return Collected(len(gone), sum(entry.size for entry in gone), kept)


def orphans(commits: Commits, finishes: Finishes, there: list[Named]) -> Iterator[tuple[Entry, float | None]]:
    """Objects of attempts that no marker names, with the moment at which the attempt began (unix seconds); None:
    nobody has committed their segment or finish, so that the attempt may still win."""
    for one, decided in unfinished(finishes, there):
        if ATTEMPT.fullmatch(one.attempt):
            yield one.entry, int(one.attempt[:8], 16) if decided else None
    named, winners = set(), set()
    for video_id in commits.markers.keys() | commits.beyond.keys():
        for marker in commits.all(video_id):
            named |= {chunk.key for chunk in marker.chunks} | {marker.state_key}
            winners |= {(layout.MEDIA, video_id, chunk.chunk) for chunk in marker.chunks}
            winners.add((layout.STATES, video_id, marker.segment))
    for one in there:
        if one.kind != "finished" and one.entry.key not in named and ATTEMPT.fullmatch(one.attempt):
            decided = (one.entry.key.partition("/")[0], one.video_id, one.number) in winners
            yield one.entry, int(one.attempt[:8], 16) if decided else None
