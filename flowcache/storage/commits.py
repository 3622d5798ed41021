"""The commit protocol: what is written in which order, and what a reader may believe.

Order for one segment: media and state under attempt-unique keys, then the marker, put if absent.
For a video: playlist, then DONE. For a run: tables, then _SUCCESS. See docs/storage.md for why.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flowcache.errors import ObjectError, StoreError, masked
from flowcache.storage import layout
from flowcache.storage.committed import (
    Commits,
    Listing,
    arrange,
    chunks_of,
    list_commits,
    marker_at,
    read_commits,
    read_markers,
)
from flowcache.storage.documents import (
    Damaged,
    DeadLetter,
    DoneMarker,
    RunRecord,
    SegmentMarker,
    Stopped,
    Unreadable,
    canonical,
    gives,
    parse,
    sha256,
    to_json,
)
from flowcache.storage.layout import (
    done_key,
    init_key,
    marker_key,
    media_key,
    new_attempt,
    playlist_key,
    run_key,
    state_key,
)
from flowcache.storage.objects.store import MissingObject, Store, looks
from flowcache.storage.ownership import confirm
from flowcache.storage.playlist import master, playlist
from flowcache.storage.proven import read_sound
from flowcache.storage.runs import begin_run, new_run, read_run, spec_hash

__all__ = [
    "Commits",
    "DeadLetter",
    "DoneMarker",
    "Listing",
    "RunRecord",
    "SegmentMarker",
    "arrange",
    "begin_run",
    "chunks_of",
    "clear_dead_letter",
    "commit_segment",
    "dead_letter",
    "done_key",
    "init_key",
    "list_commits",
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
    "read_markers",
    "read_run",
    "read_state",
    "read_stopped",
    "run_key",
    "spec_hash",
    "state_key",
    "stopped",
    "success",
    "withdraw_stopped",
    "withdraw_success",
]


def marker_sha256(marker: SegmentMarker) -> str:
    """sha256 of the marker's object, as the next segment's `parent_sha256`."""
    return sha256(to_json(marker))


def put_init(store: Store, video_id: str, data: bytes, committed: str | None = None) -> str:
    """Store the video's init segment and return its key. Every attempt must bring the same bytes.

    committed: its sha256 in the video's markers, by which a damaged one is told from another encoder's. Damaged where
    nothing is committed, so that the one there may be anybody's: a lost attempt's of another version, or a broken one.
    """
    key = layout.init_key(video_id)
    if not store.create(key, data):
        if committed == sha256(data):
            store.put(key, data)
            return key
        raise (ObjectError if committed else Damaged)(
            f"{masked(store.uri(key))} differs from what this worker's encoder makes: chunks of other sizes, frame "
            "rates or ffmpeg versions cannot be joined. Use one software version for all workers of a run"
        )
    return key


def commit_segment(store: Store, marker: SegmentMarker, holder: str | None = None) -> SegmentMarker:
    """Commit the segment, unless another attempt did. The winner: `marker` itself, or the other's.

    Everything that `marker` names must be in the store already. holder: who must hold the root (`ownership.confirm`),
    so that what a lost driver left behind commits nothing. Damaged where the marker that is there is another run's.
    """
    if holder is not None:
        confirm(store, holder)
    key = layout.marker_key(marker.video_id, marker.segment)
    if store.create(key, to_json(marker)):
        return marker
    other = marker_at(key, store.get(key), masked(store.uri(key)))
    if other.spec_hash != marker.spec_hash:
        raise Damaged(f"{masked(store.uri(key))} was committed by another run ({other.run_id})")
    return other


def read_state(store: Store, marker: SegmentMarker) -> bytes:
    """What the next segment continues from. Damaged where it is not what the marker says, Unreadable where the store
    refuses it and nothing else."""
    if marker.state_key is None:
        raise Damaged(f"the marker of segment {marker.segment} names no state to continue from")
    name = masked(store.uri(marker.state_key))

    def read(data: bytes) -> bytes:
        if sha256(data) != marker.state_sha256:
            raise Damaged(f"{name} is missing or damaged: its sha256 is not the marker's")
        return data

    try:
        return read_sound(store, marker.state_key, read)
    except MissingObject as missing:
        raise Damaged(f"{name} is missing or damaged: {missing}") from missing
    except StoreError as fault:
        if fault.of_machine and gives(store, layout.OWNER):
            raise Unreadable(f"{name} alone can't be read: {fault}") from fault
        raise


def put_playlist(store: Store, video_id: str, markers: Sequence[SegmentMarker], done: bool = False) -> str:
    """Write the playlist over the committed segments, which are consecutive, then the master playlist that names it.
    The former's key. One writer at a time: the driver."""
    key, over = layout.playlist_key(video_id), master(markers)
    store.put(key, playlist(chunks_of(markers), markers[0].fps, done).encode())
    if over is not None:
        store.put(layout.master_key(video_id), over.encode())
    return key


def done_marker(video_id: str, markers: Sequence[SegmentMarker]) -> DoneMarker:
    """What DONE.json of these markers says; a pure function of them."""
    if [marker.segment for marker in markers] != list(range(len(markers))) or not markers:
        raise ObjectError(f"video {video_id} is not done: its committed segments have gaps")
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
        raise ObjectError(f"{masked(store.uri(key))} says something else than the segment markers beside it")
    return done


def dead_letter(store: Store, letter: DeadLetter) -> None:
    """Record that the video was given up. Bytes of a log that are no text are escaped."""
    cause, log_tail = (text.encode(errors="backslashreplace").decode() for text in (letter.cause, letter.log_tail))
    store.put(layout.dead_letter_key(letter.video_id), to_json(replace(letter, cause=cause, log_tail=log_tail)))


def clear_dead_letter(store: Store, video_id: str) -> None:
    """Give the video another chance; no error where it has no dead letter."""
    store.delete(layout.dead_letter_key(video_id))


def success(store: Store, summary: dict[str, Any]) -> None:
    """Declare the run finished: the very last write, which others wait for, so it is read back."""
    data = canonical(summary)
    store.put(layout.SUCCESS, data)
    if not any(store.find(layout.SUCCESS) == data for _ in looks()):
        raise StoreError(f"{masked(store.uri(layout.SUCCESS))} was written and is not there; all else is done")


def withdraw_success(store: Store) -> None:
    """The run goes on after all (dead letters are tried again): readers must not take it for finished."""
    store.delete(layout.SUCCESS)


def stopped(store: Store, end: Stopped) -> None:
    """Tell who watches the store that nothing more will come until a driver is started again."""
    store.put(layout.STOPPED, to_json(end))


def read_stopped(store: Store) -> Stopped | None:
    """What the last driver said in the end, if it left videos and no other is at work."""
    data = store.find(layout.STOPPED)
    try:
        return None if data is None else parse(Stopped, data, masked(store.uri(layout.STOPPED)))
    except Damaged as damage:
        return Stopped("", str(damage), 1, 0, 0.0)


def withdraw_stopped(store: Store) -> None:
    """A driver is at work again."""
    store.delete(layout.STOPPED)
