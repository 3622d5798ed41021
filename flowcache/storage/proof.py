"""Proof that a run is done, from what its store lists when it is read back: no marker is read again for it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from flowcache.errors import StoreError, masked
from flowcache.storage import layout
from flowcache.storage.commits import Listing, dead_letter, list_commits, put_playlist, read_markers, withdraw_success
from flowcache.storage.committed import CURE, chunks_of
from flowcache.storage.documents import DeadLetter, RunRecord, SegmentMarker
from flowcache.storage.finish_marker import FinishMarker
from flowcache.storage.finishes import lost_files
from flowcache.storage.growth import some_of
from flowcache.storage.objects.store import Store, looks
from flowcache.storage.parts import manifest_keys
from flowcache.storage.playlist import master, playlist
from flowcache.storage.tables import Known, table_keys, write_tables
from flowcache.storage.withdrawal import withdraw


class Unproven(StoreError):
    """The store does not show what it should; the message names the difference. `left`: videos that it shows neither
    as done nor as dead."""

    def __init__(self, message: str, left: int):
        self.left = left
        super().__init__(message)


def read_back(
    store: Store,
    run: RunRecord,
    known: Known,
    listing: Listing | None = None,
    left: Collection[str] = (),
    made: Iterable[SegmentMarker] = (),
    finish: str | None = None,
    finishes: Sequence[FinishMarker] = (),
) -> Listing:
    """Write the tables, and compare what the store then lists with the requests that the run accepted.

    Lists again for a while what does not show, then raises Unproven. known: markers that need not be read; listing:
    what is committed, where nothing was since; left: videos that the run ends without; made: markers of this driver,
    whose chunks must be there. Segments that have lost one are withdrawn, to be rendered again. finish: the function
    that every video was to be finished by; finishes: those of this driver, treated alike.
    """
    lacking, unfinished, lost, gone_files = [], 0, dict[str, Lost](), dict[tuple[str, str], str]()
    lists, written = dict[str, str](), dict[str, int]()
    shown: Listing | None = None
    for _ in looks():
        shown = listing or list_commits(store)
        written |= write_tables(store, run, shown, known)
        media = {entry.key: entry.size for entry in store.list(layout.MEDIA)}
        lists, tables = faulty_lists(run, shown, known, media), faulty_tables(store, run, written)
        lost, gone_files = lost_chunks(made, media), lost_files(finishes, media)
        lacking = [*lacks(run, shown, lists, left, finish), *(f"{key}: {why}" for key, why in tables.items())]
        lacking += [f"video {name}: {why}" for (name, _), why in gone_files.items()]
        lacking += [f"video {name}: {one.why}" for name, one in lost.items()]
        if not lacking:
            return shown
        mend_playlists(store, run, shown, lists)
        if tables:
            store.delete(layout.parts_key(run.run_id))  # so that all are written anew
        unfinished = len(run.plan["videos"].keys() - shown.done - shown.dead_letters.keys())
        listing = None
    for place in gone_files:
        store.delete(layout.finish_key(*place))
    for name, one in lost.items():
        gone = [n for n in shown.segments.get(name, ()) if n >= one.segment] if shown else []
        withdraw(store, name, [layout.marker_key(name, number) for number in gone], [one.why])
    for name in lists.keys() & (shown.done if shown else set()):
        store.delete(layout.done_key(name))  # so that the next run reads its markers, and closes its playlist
    message = f"{masked(store.url)} does not show all of the run, however often it is listed: {some_of(lacking)}"
    raise Unproven(f"{message}. Nothing is marked finished", unfinished)


def faulty_lists(run: RunRecord, listing: Listing, known: Known, media: Mapping[str, int]) -> dict[str, str]:
    """What is wrong with a playlist, by video: not there, or an older one, as its size tells where markers are known.

    media: sizes of what is listed, by key. A write may be lost, or one that was given up arrive after the last one.
    """
    faults = {}
    for name, planned in run.plan["videos"].items():
        size, found = media.get(layout.playlist_key(name)), known.get(name, {})
        if size is None:
            faults[name] = "no playlist"
        elif name in listing.done and found.keys() == set(range(planned["segments"])):
            markers = [found[number] for number in sorted(found)]
            over = master(markers)
            if size != len(playlist(chunks_of(markers), found[0].fps, done=True).encode()):
                faults[name] = "an older playlist"
            elif over is not None and media.get(layout.master_key(name)) != len(over.encode()):
                faults[name] = "no master playlist, or an older one"
    return faults


def faulty_tables(store: Store, run: RunRecord, written: Mapping[str, int]) -> dict[str, str]:
    """What is wrong with a part, by key. written: sizes of those that were just written."""
    there = {entry.key: entry.size for entry in store.list(layout.META)}
    wanted = chain(manifest_keys(run), *table_keys(run))
    lost = {key: "not there" for key in wanted if key not in there}
    old = {key: "an older one" for key, size in written.items() if there.get(key, size) != size}
    return lost | old


def mend_playlists(store: Store, run: RunRecord, listing: Listing, faulty: Collection[str]) -> None:
    """Write anew the playlists of finished videos that are faulty: their markers say all that is in them.

    A video whose markers are damaged is not finished, but given up until it is repaired.
    """
    lost = [name for name in faulty if name in listing.done]
    markers, damaged = read_markers(store, listing, lost)
    for name in lost:
        found = [markers[name][segment] for segment in sorted(markers[name])]
        if found and name not in damaged:
            put_playlist(store, name, found, done=True)
    for request in run.requests:
        why = damaged.get(request["id"])
        if why:
            letter = DeadLetter(request["id"], None, None, f"{why}. {CURE}", "damaged", 0, "", request)
            withdraw_success(store)
            store.delete(layout.done_key(letter.video_id))
            dead_letter(store, letter)


@dataclass(frozen=True)
class Lost:
    """The first segment of a video of which the store took a chunk and does not show it."""

    segment: int
    why: str


def lost_chunks(made: Iterable[SegmentMarker], media: Mapping[str, int]) -> dict[str, Lost]:
    """By video. media: sizes of what is listed, by key."""
    found: dict[str, Lost] = {}
    for marker in made:
        bad = next((chunk for chunk in marker.chunks if media.get(chunk.key) != chunk.bytes), None)
        first = found.get(marker.video_id)
        if bad and (first is None or marker.segment < first.segment):
            shown = f"has {media[bad.key]} of {bad.bytes} bytes" if bad.key in media else "is not there"
            why = f"{bad.key} {shown}, though the store took it; the next run renders it again"
            found[marker.video_id] = Lost(marker.segment, why)
    return found


def lacks(
    run: RunRecord,
    listing: Listing,
    lists: Mapping[str, str],
    left: Collection[str] = (),
    finish: str | None = None,
) -> Iterator[str]:
    """The difference: each video that is neither given up nor whole. lists: what is wrong with playlists, by video;
    finish: the function that was to finish all, if any."""
    for video_id, planned in run.plan["videos"].items():
        over = video_id in listing.dead_letters or video_id in listing.withheld
        given_up = over and video_id not in listing.done
        lack = (
            "" if given_up or video_id in left else lack_of(video_id, planned["segments"], listing, lists.get(video_id))
        )
        if lack:
            yield f"video {video_id}: {lack}"
        elif finish and not over and video_id not in left and finish not in listing.finished.get(video_id, ()):
            yield f"video {video_id}: not finished by {finish}"


def lack_of(video_id: str, planned: int, listing: Listing, of_list: str | None) -> str:
    """What a video lacks that should be done; "" where it is whole. planned: segments; of_list: see `faulty_lists`."""
    segments = listing.segments.get(video_id, [])
    shows = {
        f"{len(segments)} of {planned} segments": segments == list(range(planned)),
        "not marked done": video_id in listing.done,
        of_list or "": of_list is None,
    }
    return ", ".join(words for words, shown in shows.items() if not shown)
