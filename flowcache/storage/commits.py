"""The commit protocol: what is written in which order, and what a reader may believe.

Order for one segment: media and state under attempt-unique keys, then the marker, put if absent.
For a video: playlist, then DONE. For a run: tables, then _SUCCESS. See docs/storage.md for why.
"""

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowcache.errors import StoreError, masked
from flowcache.records import ChunkRecord
from flowcache.storage import layout
from flowcache.storage.documents import (
    DeadLetter,
    DoneMarker,
    RunRecord,
    SegmentMarker,
    Stopped,
    canonical,
    parse,
    read_all,
    sha256,
    to_json,
)
from flowcache.storage.keys import listed
from flowcache.storage.layout import (
    done_key,
    init_key,
    marker_key,
    media_key,
    playlist_key,
    run_key,
    state_key,
)
from flowcache.storage.objects.store import Store
from flowcache.storage.playlist import playlist
from flowcache.storage.runs import begin_run, new_run, read_run, spec_hash

__all__ = [
    "Commits",
    "DeadLetter",
    "DoneMarker",
    "RunRecord",
    "SegmentMarker",
    "begin_run",
    "clear_dead_letter",
    "commit_segment",
    "dead_letter",
    "done_key",
    "init_key",
    "mark_done",
    "marker_key",
    "marker_sha256",
    "media_key",
    "new_attempt",
    "new_run",
    "playlist_key",
    "put_init",
    "put_playlist",
    "read_commits",
    "read_run",
    "read_stopped",
    "run_key",
    "spec_hash",
    "state_key",
    "stopped",
    "success",
    "withdraw_stopped",
    "withdraw_success",
]


def new_attempt() -> str:
    """A short unique name for one try at one segment; later ones sort after earlier ones (to the second)."""
    return f"{int(time.time()):08x}{secrets.token_hex(4)}"


def marker_sha256(marker: SegmentMarker) -> str:
    """sha256 of the marker's object, as the next segment's `parent_sha256`."""
    return sha256(to_json(marker))


def put_init(store: Store, video_id: str, data: bytes) -> str:
    """Store the video's init segment and return its key. Every attempt must bring the same bytes."""
    key = layout.init_key(video_id)
    if not store.create(key, data):
        raise StoreError(
            f"{masked(store.uri(key))} differs from what this worker's encoder makes: chunks of other sizes, frame "
            "rates or ffmpeg versions cannot be joined. Use one software version for all workers of a run"
        )
    return key


def commit_segment(store: Store, marker: SegmentMarker) -> SegmentMarker:
    """Commit the segment, unless another attempt did. The winner: `marker` itself, or the other's.

    Everything that `marker` names must be in the store already.
    """
    key = layout.marker_key(marker.video_id, marker.segment)
    if store.create(key, to_json(marker)):
        return marker
    return parse(SegmentMarker, store.get(key), masked(store.uri(key)))


def put_playlist(store: Store, video_id: str, markers: Sequence[SegmentMarker], done: bool = False) -> str:
    """Write the playlist over the committed segments and return its key. One writer at a time: the driver."""
    key = layout.playlist_key(video_id)
    store.put(key, playlist(chunks_of(markers), markers[0].fps, done).encode())
    return key


def done_marker(video_id: str, markers: Sequence[SegmentMarker]) -> DoneMarker:
    """What DONE.json of these markers says; a pure function of them."""
    if [marker.segment for marker in markers] != list(range(len(markers))) or not markers:
        raise StoreError(f"video {video_id} is not done: its committed segments have gaps")
    chunks = chunks_of(markers)
    return DoneMarker(
        video_id=video_id,
        run_id=markers[0].run_id,
        spec_hash=markers[0].spec_hash,
        playlist=layout.playlist_key(video_id),
        init_key=markers[0].init_key,
        segments=len(markers),
        chunks=len(chunks),
        frames=sum(chunk.frames for chunk in chunks),
        bytes=sum(chunk.bytes for chunk in chunks),
        fps=markers[0].fps,
        markers=tuple(marker_sha256(marker) for marker in markers),
    )


def mark_done(store: Store, video_id: str, markers: Sequence[SegmentMarker]) -> DoneMarker:
    """Declare the video complete, after its closed playlist was written. Doing it again changes nothing."""
    done = done_marker(video_id, markers)
    key = layout.done_key(video_id)
    if not store.create(key, to_json(done)):
        raise StoreError(f"{masked(store.uri(key))} says something else than the segment markers beside it")
    return done


def dead_letter(store: Store, letter: DeadLetter) -> None:
    """Record that the video was given up. Bytes of a log that are no text are escaped."""
    cause, log_tail = (text.encode(errors="backslashreplace").decode() for text in (letter.cause, letter.log_tail))
    store.put(layout.dead_letter_key(letter.video_id), to_json(replace(letter, cause=cause, log_tail=log_tail)))


def clear_dead_letter(store: Store, video_id: str) -> None:
    """Give the video another chance; no error where it has no dead letter."""
    store.delete(layout.dead_letter_key(video_id))


def success(store: Store, summary: dict[str, Any]) -> None:
    """Declare the run finished: the very last write."""
    store.put(layout.SUCCESS, canonical(summary))


def withdraw_success(store: Store) -> None:
    """The run goes on after all (dead letters are tried again): readers must not take it for finished."""
    store.delete(layout.SUCCESS)


def stopped(store: Store, end: Stopped) -> None:
    """Tell who watches the store that nothing more will come until a driver is started again."""
    store.put(layout.STOPPED, to_json(end))


def read_stopped(store: Store) -> Stopped | None:
    data = store.find(layout.STOPPED)
    return None if data is None else parse(Stopped, data, masked(store.uri(layout.STOPPED)))


def withdraw_stopped(store: Store) -> None:
    """A driver is at work again."""
    store.delete(layout.STOPPED)


def chunks_of(markers: Sequence[SegmentMarker]) -> list[ChunkRecord]:
    return [chunk for marker in markers for chunk in marker.chunks]


@dataclass(frozen=True)
class Commits:
    """Everything that is committed below a root."""

    markers: dict[str, tuple[SegmentMarker, ...]]  # by video: segments 0..n without a gap, in order
    beyond: dict[str, tuple[SegmentMarker, ...]]  # by video: those after a gap (later shots run side by side)
    done: frozenset[str]  # videos with DONE
    dead_letters: dict[str, DeadLetter]

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


def list_commits(store: Store) -> Listing:
    """Two listings, and the dead letters in parallel."""
    segments: dict[str, list[int]] = {}
    done = set()
    for found in listed(store, layout.COMMITS):
        if found.kind == "done":
            done.add(found.video_id)
        else:
            segments.setdefault(found.video_id, []).append(found.number)
    letters = read_all(store, DeadLetter, [found.entry.key for found in listed(store, layout.DEAD_LETTERS)])
    return Listing(segments, frozenset(done), {letter.video_id: letter for letter in letters})


def read_markers(store: Store, listing: Listing, videos: Iterable[str]) -> dict[str, dict[int, SegmentMarker]]:
    """The committed markers of these videos by segment, read in parallel. StoreError for a damaged one."""
    found: dict[str, dict[int, SegmentMarker]] = {name: {} for name in videos}
    keys = [layout.marker_key(name, segment) for name in found for segment in listing.segments.get(name, ())]
    for marker in read_all(store, SegmentMarker, keys):
        found[marker.video_id][marker.segment] = marker
    return found


def read_commits(store: Store, known: dict[str, SegmentMarker] | None = None) -> Commits:
    """Two listings, then the markers in parallel. StoreError for a damaged marker.

    known: markers by key that were read before and never change; those that are new are added to it.
    """
    known = {} if known is None else known
    found = listed(store, layout.COMMITS)
    letters = read_all(store, DeadLetter, [letter.entry.key for letter in listed(store, layout.DEAD_LETTERS)])
    wanted = [one.entry.key for one in found if one.kind == "marker"]
    new = [key for key in wanted if key not in known]
    known.update(zip(new, read_all(store, SegmentMarker, new), strict=True))
    return arrange([known[key] for key in wanted], [one.video_id for one in found if one.kind == "done"], letters)


def arrange(markers: Iterable[SegmentMarker], done: Iterable[str], letters: Iterable[DeadLetter]) -> Commits:
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
    return Commits(contiguous, beyond, frozenset(done), {letter.video_id: letter for letter in letters})
