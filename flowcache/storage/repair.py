"""Withdraws what `verify` finds damaged, so that the next run renders exactly that, and writes anew what follows from
markers. Whoever does so holds the root (`ownership`)."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from flowcache.records import Rate
from flowcache.storage import layout
from flowcache.storage.audit import Damage
from flowcache.storage.commits import (
    clear_dead_letter,
    done_marker,
    list_commits,
    mark_done,
    marker_sha256,
    put_playlist,
    read_state,
    withdraw_success,
)
from flowcache.storage.committed import read_at
from flowcache.storage.documents import (
    Damaged,
    DoneMarker,
    Newer,
    RunRecord,
    SegmentMarker,
    Unreadable,
    parse,
    sha256,
    to_json,
)
from flowcache.storage.keys import listed, named
from flowcache.storage.media import encode_chunk
from flowcache.storage.objects.backend import Entry
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import Hold, take
from flowcache.storage.runs import read_run
from flowcache.storage.tables import write_tables
from flowcache.storage.verify import verify
from flowcache.storage.withdrawal import finish_withdrawals, withdraw


@dataclass(frozen=True)
class Repaired:
    """`problems`: what was found; `withdrawn`: by video the segments that the next run renders; `left`: problems that
    only a person can mend, such as files of somebody else among the tables."""

    problems: tuple[Damage, ...]
    withdrawn: dict[str, list[int]]
    left: tuple[Damage, ...]


@dataclass
class Faults:
    """What is wrong, by what has to be done about it."""

    run_id: str
    videos: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))  # segments
    why: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by video
    unjudged: set[str] = field(default_factory=set)  # videos of which a marker can't be read, which may be sound
    letters: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)  # keys
    finishes: set[str] = field(default_factory=set)  # keys of commits
    tables: bool = False
    left: list[Damage] = field(default_factory=list)

    def add(self, problem: Damage) -> None:
        found = named(Entry(problem.key, 0)) if problem.key else None
        kind = found.kind if found else ""
        if problem.unreadable:
            self.left.append(problem)
            self.unjudged |= {problem.video_id or ""} if kind == "marker" else set()
        elif kind == "text":
            self.texts.add(problem.key or "")
        elif found and kind in ("finish", "finished"):
            self.finishes.add(layout.finish_key(found.video_id, found.finish))
        elif (problem.key or "").startswith(f"{layout.META}/"):
            self.tables = True
            if "." in (problem.key or "").rpartition("/")[2] and not (found and self.run_id in (problem.key or "")):
                self.left.append(problem)  # a note, or another run's
        elif kind == "letter":
            self.letters.add(problem.video_id or "")
        elif problem.video_id is None:
            self.left.append(problem)
        else:
            self.why[problem.video_id].append(str(problem))
            own = {found.number} if found and kind == "marker" else {problem.segment}
            derived = kind in ("init", "done", "playlist", "master") or own == {None}
            self.videos[problem.video_id] |= set() if derived else {number for number in own if number is not None}


def repair(store: Store, decode: bool = True, note: Callable[[str], None] = lambda message: None) -> Repaired:
    """`mend` while nobody else is at work: InputError where somebody is; who comes meanwhile waits.

    StoreError where the root holds no run. note: tells the operator.
    """
    with take(store, read_run(store), "repair", note) as hold:
        return mend(store, hold, decode)


def mend(store: Store, hold: Hold, decode: bool = True) -> Repaired:
    """Find what `verify` finds and mend it: derived objects are written anew, damaged segments are withdrawn together
    with what was continued from them, and so are the dead letters of their videos. What the store refuses to give is
    left as it is.

    decode: also look for chunks that have the right hash and don't decode.
    """
    run = read_run(store)
    finish_withdrawals(store)
    report, faults = verify(store, decode), Faults(run.run_id)
    for problem in report.problems:
        faults.add(problem)
    hold.look()
    withdrawn = {}
    for name, bad in faults.videos.items():
        if name in faults.unjudged:
            continue
        hold.check()
        gone, missing = mend_video(store, run, name, bad, faults.why[name])
        withdrawn |= {name: missing} if gone or missing else {}
    for name, letter in list_commits(store).dead_letters.items():
        if name in faults.letters or letter.kind == "damaged":
            clear_dead_letter(store, name)
    for key in faults.texts | faults.finishes:
        store.delete(key)
    listing = list_commits(store)
    if any(name not in listing.done and name not in listing.dead_letters for name in run.plan["videos"]):
        withdraw_success(store)
    if faults.tables:
        store.delete(layout.parts_key(run.run_id))
    if report.problems:
        hold.look()
        write_tables(store, run, listing)
    return Repaired(report.problems, withdrawn, tuple(faults.left))


def mend_video(
    store: Store, run: RunRecord, video_id: str, bad: set[int], why: list[str]
) -> tuple[set[int], list[int]]:
    """Withdraw its damaged segments and their descendants, and write init, playlist and DONE anew where they lack.
    The numbers of the withdrawn segments, and of those that are to be rendered. bad: is added to."""
    there = {found.entry.key: found.number for found in listed(store, f"{layout.COMMITS}/{video_id}", "marker")}
    found, faults = read_at(store, list(there))
    if any(isinstance(fault, Unreadable) for fault in faults.values()):
        return set(), []  # which may be sound: what continues it is not judged without it
    markers = list(found.values())
    planned = run.plan["videos"].get(video_id, {"segments": 0})["segments"]
    bad |= {
        marker.segment
        for marker in markers
        if marker.segment >= planned or marker.spec_hash != run.hash_of(marker.video_id)
    }
    bad |= of_another_init(store, run, video_id, markers) | against_done(store, video_id, markers)
    kept = sound_ones(markers, bad)
    gone = sorted(there.keys() - {layout.marker_key(video_id, marker.segment) for marker in kept})
    whole = len(kept) == planned > 0
    store.delete(layout.signature_key(video_id))  # of what was there before; or itself what is wrong
    if gone:
        withdraw(store, video_id, gone, why)
    if not whole or store.find(layout.done_key(video_id)) != to_json(done_marker(video_id, kept)):
        store.delete(layout.done_key(video_id))
    together = [marker for index, marker in enumerate(kept) if marker.segment == index]
    if together:
        put_playlist(store, video_id, together, whole)
    else:
        store.delete(layout.playlist_key(video_id))
        store.delete(layout.master_key(video_id))
    if whole:
        mark_done(store, video_id, kept)
    return {there[key] for key in gone}, sorted(set(range(planned)) - {marker.segment for marker in kept})


def take_back(
    store: Store, run: RunRecord, video_id: str, continued: int | None, why: list[str], bad: set[int]
) -> set[int]:
    """Withdraw what can't be gone on with: damaged markers, the segments `bad`, and `continued` where its state is not
    to be had, with what came before it up to a segment whose state is. An init segment without any marker goes too.
    The numbers of the withdrawn segments."""
    keys = [found.entry.key for found in listed(store, f"{layout.COMMITS}/{video_id}", "marker")]
    if not keys:
        store.delete(layout.init_key(video_id))
        return set()
    found, faults = read_at(store, keys)
    if any(isinstance(fault, Newer) for fault in faults.values()):
        return set()  # not ours to take back
    markers = {marker_sha256(marker): marker for marker in found.values()}
    parent = next((marker for marker in markers.values() if marker.segment == continued), None)
    while parent is not None and not has_state(store, parent):
        bad.add(parent.segment)
        parent = markers.get(parent.parent_sha256 or "")
    return mend_video(store, run, video_id, bad, why)[0]


def has_state(store: Store, marker: SegmentMarker) -> bool:
    try:
        read_state(store, marker)
    except Damaged:
        return False
    return True


def fault_of_commit(store: Store, marker: SegmentMarker, parent: SegmentMarker | None) -> str | None:
    """What is wrong with a marker that was just committed: it continues another one than `parent`, or what it names is
    not there. None where it is sound."""
    if marker.parent_sha256 != (parent and marker_sha256(parent)):
        return f"segment {marker.segment} continues a segment that is not the committed one"
    folders = (f"{layout.MEDIA}/{marker.video_id}", f"{layout.STATES}/{marker.video_id}")
    sizes = {entry.key: entry.size for folder in folders for entry in store.list(folder)}
    named = {chunk.key: chunk.bytes for chunk in marker.chunks}
    named |= {marker.state_key: marker.state_bytes} if marker.state_key else {}
    lost = next((key for key, size in named.items() if sizes.get(key) != size), None)
    return f"{lost} is missing or of another size" if lost else None


def sound_ones(markers: Iterable[SegmentMarker], bad: set[int]) -> list[SegmentMarker]:
    """Those that are not damaged and continue one of them, or none.

    Where a marker names another parent than is there, one of the two was changed: none of them is believed.
    """
    kept: list[SegmentMarker] = []
    hashes = set[str]()
    for marker in sorted(markers, key=lambda marker: marker.segment):
        if marker.parent_sha256 is not None and marker.parent_sha256 not in hashes:
            if kept and kept[-1].segment == marker.segment - 1:
                hashes.discard(marker_sha256(kept.pop()))
        elif marker.segment not in bad:
            kept.append(marker)
            hashes.add(marker_sha256(marker))
    return kept


def of_another_init(store: Store, run: RunRecord, video_id: str, markers: list[SegmentMarker]) -> set[int]:
    """Segments whose init segment is lost. It is made anew where this machine's encoder makes the same."""
    sums = {marker.init_sha256 for marker in markers}
    data = store.find(layout.init_key(video_id))
    if markers and (data is None or sha256(data) not in sums):
        data = init_of(run, video_id, markers[0].fps)
        if sha256(data) in sums:
            store.put(layout.init_key(video_id), data)
        else:
            store.delete(layout.init_key(video_id))
    return {marker.segment for marker in markers if data is None or marker.init_sha256 != sha256(data)}


def init_of(run: RunRecord, video_id: str, fps: Rate) -> bytes:
    """Follows from size and frame rate alone, whatever the frames show; b"" for a video that is not of the run."""
    size = next(((one["height"], one["width"]) for one in run.requests if one["id"] == video_id), None)
    return encode_chunk(np.zeros((1, *size, 3), np.uint8), 0, fps).init if size else b""


def against_done(store: Store, video_id: str, markers: list[SegmentMarker]) -> set[int]:
    """Segments whose markers are not those that DONE was made from, if it can be read."""
    data = store.find(layout.done_key(video_id))
    try:
        done = None if data is None else parse(DoneMarker, data, video_id)
    except Damaged:
        return set()
    if done is None or len(done.markers) != len(markers):
        return set()
    return {m.segment for m, wanted in zip(markers, done.markers, strict=True) if marker_sha256(m) != wanted}
