"""What is committed below a root. What is damaged is one video's trouble: it is left out, and told."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flowcache.errors import StoreError, masked
from flowcache.records import ChunkRecord
from flowcache.storage import layout
from flowcache.storage.control import Log, Withheld, read_log
from flowcache.storage.documents import (
    Damaged,
    DeadLetter,
    DoneMarker,
    Newer,
    SegmentMarker,
    Unreadable,
    parse,
)
from flowcache.storage.finish_marker import FinishMarker, Names
from flowcache.storage.keys import Named, listed
from flowcache.storage.objects.store import Store
from flowcache.storage.proven import read_proven

CURE = "`flowcache repair` withdraws what is damaged, and what was continued from it"


def chunks_of(markers: Sequence[SegmentMarker]) -> list[ChunkRecord]:
    return [chunk for marker in markers for chunk in marker.chunks]


@dataclass(frozen=True)
class Commits:
    """Everything that is committed below a root."""

    markers: dict[str, tuple[SegmentMarker, ...]]  # by video: segments 0..n without a gap, in order
    beyond: dict[str, tuple[SegmentMarker, ...]]  # by video: those after a gap (later shots run side by side)
    done: frozenset[str]  # videos with DONE
    dead_letters: dict[str, DeadLetter]
    damaged: dict[str, str] = field(default_factory=dict)  # by video: what is wrong with a marker that is left out
    withheld: dict[str, Withheld] = field(default_factory=dict)  # by video: cancelled or skipped by somebody
    finished: Names = field(default_factory=dict)  # by names alone
    finishes: dict[str, tuple[FinishMarker, ...]] = field(default_factory=dict)  # by video: those that were read

    def all(self, video_id: str) -> tuple[SegmentMarker, ...]:
        """Every committed segment of the video, in order."""
        return self.markers.get(video_id, ()) + self.beyond.get(video_id, ())

    def find(self, video_id: str, segment: int) -> SegmentMarker | None:
        contiguous = self.markers.get(video_id, ())
        if segment < len(contiguous):
            return contiguous[segment]
        return next((m for m in self.beyond.get(video_id, ()) if m.segment == segment), None)


@dataclass(frozen=True)
class Listing:
    """What is committed, by names alone: markers are not read, only dead letters (there are few)."""

    segments: dict[str, list[int]]  # by video: its committed segments, ascending
    done: frozenset[str]  # videos with DONE
    dead_letters: dict[str, DeadLetter]
    withheld: dict[str, Withheld] = field(default_factory=dict)  # as in Commits
    finished: Names = field(default_factory=dict)


def list_commits(store: Store) -> Listing:
    """Three listings, and dead letters and commands in parallel."""
    segments: dict[str, list[int]] = {}
    there = listed(store, layout.COMMITS)
    for found in there:
        if found.kind == "marker":
            segments.setdefault(found.video_id, []).append(found.number)
    done = frozenset(found.video_id for found in there if found.kind == "done")
    return Listing(segments, done, read_letters(store), read_log(store).withheld, finished(there))


def finished(there: Iterable[Named]) -> dict[str, tuple[str, ...]]:
    """By video: the functions whose finish of it is among these."""
    names: dict[str, tuple[str, ...]] = {}
    for found in there:
        if found.kind == "finish":
            names[found.video_id] = (*names.get(found.video_id, ()), found.finish)
    return names


def read_letters(store: Store) -> dict[str, DeadLetter]:
    """By video. A damaged letter still says that its video was given up."""
    keys = {found.entry.key: found.video_id for found in listed(store, layout.DEAD_LETTERS)}
    letters = {}
    for key, found in read_proven(store, list(keys), lambda key, data: letter_at(key, data, masked(store.uri(key)))):
        if isinstance(found, Damaged):
            found = DeadLetter(keys[key], None, None, f"{found}. {CURE}", "damaged", 0, "", None)
        if isinstance(found, DeadLetter):
            letters[keys[key]] = found
    return letters


def letter_at(key: str, data: bytes, name: str) -> DeadLetter:
    """Damaged where it is no letter of that place."""
    letter = parse(DeadLetter, data, name)
    if layout.dead_letter_key(letter.video_id) != key:
        raise Damaged(f"{name} is damaged: it is that of video {letter.video_id}")
    return letter


def marker_at(key: str, data: bytes, name: str) -> SegmentMarker:
    """Damaged where it is no marker of that place."""
    marker = parse(SegmentMarker, data, name)
    if layout.marker_key(marker.video_id, marker.segment) != key:
        raise Damaged(f"{name} is damaged: it is that of segment {marker.segment} of video {marker.video_id}")
    if marker.fps < 1:
        raise Damaged(f"{name} is damaged: no valid SegmentMarker (fps is {marker.fps})")
    return marker


def read_at(store: Store, keys: Sequence[str]) -> tuple[dict[str, SegmentMarker], dict[str, StoreError]]:
    """The markers at these keys, read in parallel, and what is wrong with those that can't be used, by key."""
    found: dict[str, SegmentMarker] = {}
    damaged: dict[str, StoreError] = {}
    for key, one in read_proven(store, keys, lambda key, data: marker_at(key, data, masked(store.uri(key)))):
        if isinstance(one, SegmentMarker):
            found[key] = one
        else:
            damaged[key] = one
    return found, damaged


def playable(store: Store, video_id: str) -> list[SegmentMarker]:
    """What is committed of one video, from its start on. StoreError where that is nothing, damaged, or less than DONE
    says."""
    found = listed(store, f"{layout.COMMITS}/{video_id}")
    markers, faults = read_at(store, [one.entry.key for one in found if one.kind == "marker"])
    for fault in faults.values():
        raise fault
    together = [marker for index, marker in enumerate(markers.values()) if marker.segment == index]
    if not together:
        raise StoreError(f"{masked(store.url)} holds no chunks of video {video_id}")
    for key in (one.entry.key for one in found if one.kind == "done"):
        name = masked(store.uri(key))
        if parse(DoneMarker, store.get(key), name).segments != len(together):
            raise Damaged(f"{name} says more than its segments' markers beside it. {CURE}")
    return together


def read_markers(
    store: Store, listing: Listing, videos: Iterable[str]
) -> tuple[dict[str, dict[int, SegmentMarker]], dict[str, StoreError]]:
    """The committed markers of these videos by segment, read in parallel, and by video what is wrong with a marker:
    first of all what must not be taken back."""
    by_video: dict[str, dict[int, SegmentMarker]] = {name: {} for name in videos}
    keys = {layout.marker_key(name, n): name for name in by_video for n in listing.segments.get(name, ())}
    found, damaged = read_at(store, list(keys))
    for marker in found.values():
        by_video[marker.video_id][marker.segment] = marker
    faults: dict[str, StoreError] = {}
    for key, why in damaged.items():
        if keys[key] not in faults or isinstance(why, Newer | Unreadable):
            faults[keys[key]] = why
    return by_video, faults


def read_commits(store: Store, known: dict[str, SegmentMarker] | None = None, log: Log | None = None) -> Commits:
    """Three listings, then the markers in parallel.

    known: markers by key that were read before; those that are new are added to it. log: of commands, if it was read.
    """
    known = {} if known is None else known
    there = listed(store, layout.COMMITS)
    letters = read_letters(store)
    wanted = {one.entry.key: one.video_id for one in there if one.kind == "marker"}
    found, damaged = read_at(store, [key for key in wanted if key not in known])
    known.update(found)
    commits = arrange(
        [known[key] for key in wanted if key in known],
        [one.video_id for one in there if one.kind == "done"],
        letters.values(),
        (log or read_log(store)).withheld,
    )
    why = {wanted[key]: str(fault) for key, fault in damaged.items()}
    return replace(commits, damaged=why, finished=finished(there))


def arrange(
    markers: Iterable[SegmentMarker],
    done: Iterable[str],
    letters: Iterable[DeadLetter],
    withheld: Mapping[str, Withheld] | None = None,
) -> Commits:
    """Sort the markers of each video into those without a gap from segment 0 and the rest."""
    by_video: dict[str, list[SegmentMarker]] = {}
    for marker in markers:
        by_video.setdefault(marker.video_id, []).append(marker)
    contiguous, beyond = {}, {}
    for video_id, found in by_video.items():
        found.sort(key=lambda marker: marker.segment)
        length = next((i for i, marker in enumerate(found) if marker.segment != i), len(found))
        contiguous[video_id] = tuple(found[:length])
        if length < len(found):
            beyond[video_id] = tuple(found[length:])
    dead_letters = {letter.video_id: letter for letter in letters}
    return Commits(contiguous, beyond, frozenset(done), dead_letters, withheld=dict(withheld or {}))
