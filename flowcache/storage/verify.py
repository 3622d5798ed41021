"""Proof that a store holds what its markers say: every byte hashed, every chunk decoded, every row compared."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain

from flowcache.errors import ObjectError
from flowcache.storage import layout
from flowcache.storage.audit import Audit, Damage, ObjectCheck, check_object, check_sound, objects_of
from flowcache.storage.audit_tables import check_commands, check_manifests, check_tables, read_tables
from flowcache.storage.chain import check_continuity, check_markers
from flowcache.storage.commits import Commits, arrange, chunks_of, done_marker
from flowcache.storage.committed import finished as finished_of
from flowcache.storage.committed import read_at, read_letters
from flowcache.storage.control import read_log
from flowcache.storage.documents import READERS, RunRecord, SegmentMarker, Unreadable, to_json
from flowcache.storage.finish_marker import read_finishes
from flowcache.storage.finishes import check_finishes, files_of
from flowcache.storage.keys import foreign, listed
from flowcache.storage.objects.store import Store
from flowcache.storage.playlist import master, playlist
from flowcache.storage.runs import read_run
from flowcache.storage.signatures import check_signatures
from flowcache.storage.status import StatusReport, VideoStatus, status
from flowcache.storage.texts import fault_of

__all__ = ["Damage", "Report", "StatusReport", "VideoStatus", "status", "verify"]

WORKERS = 8  # objects decoded side by side; each holds one object and one frame


@dataclass(frozen=True)
class Report:
    """`problems` is empty where everything is sound. Orphans (leftovers of lost attempts) are no problem.

    `counts`: videos, done, segments, chunks, frames, bytes, objects, rows, orphans. `foreign`: keys of what somebody
    else put into the root, which is ignored.
    """

    run_id: str
    problems: tuple[Damage, ...]
    counts: dict[str, int]
    foreign: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        return not self.problems


def verify(store: Store, decode: bool = True, anchors: bytes | None = None) -> Report:
    """Check everything below the root; `decode=False` hashes the media without decoding it.

    anchors: PEM of those whose signatures count, else anybody's do.
    Works while the run goes on: what is not yet committed is no problem. StoreError where the root holds
    no run or cannot be read at all.
    """
    run, audit = read_run(store), Audit()
    # Read backwards, last written first: what a run adds meanwhile then is more than was asked for, not less.
    finished = store.exists(layout.SUCCESS)
    tables = read_tables(store, run, audit)
    commits = read_leniently(store, audit)
    sizes = {
        found.entry.key: found.entry.size for prefix in (layout.MEDIA, layout.STATES) for found in listed(store, prefix)
    }
    requests = {request["id"]: request for request in run.requests}
    videos = sorted(commits.markers.keys() | commits.done | requests.keys())
    with ThreadPoolExecutor(READERS) as pool:
        for problems in pool.map(lambda name: list(check_video(store, run, commits, name, finished)), videos):
            audit.extend(problems)
    checks = [check for video_id in sorted(commits.markers) for check in objects_of(commits.all(video_id), requests)]
    checks += [check for video_id in sorted(commits.finishes) for check in files_of(commits.finishes[video_id])]
    read_init = lru_cache(maxsize=64)(lambda key: store.find(key) if key in sizes else None) if decode else None
    with ThreadPoolExecutor(WORKERS if decode else READERS) as pool:
        for problems in pool.map(lambda check: check_object(store, check, sizes, read_init), checks):
            audit.extend(problems)
    with ThreadPoolExecutor(READERS) as pool:
        texts = [found.entry.key for found in listed(store, layout.TEXTS)]
        audit.extend(chain.from_iterable(pool.map(lambda key: list(check_text(store, key)), texts)))
    audit.extend(chain(check_signatures(store, commits, anchors), check_finishes(commits)))
    audit.extend(chain(check_tables(tables, run, commits, finished), check_manifests(store, run, finished)))
    audit.extend(check_commands(store, run, finished))
    told = {problem.key for problem in audit.problems}
    others = tuple(key for key in foreign(store.list()) if key not in told)
    return Report(run.run_id, tuple(audit.problems), counts(commits, checks, sizes, audit.rows), others)


def read_leniently(store: Store, audit: Audit) -> Commits:
    """The commits that can be read; damaged documents become problems."""
    found = listed(store, layout.COMMITS)
    done = [one.video_id for one in found if one.kind == "done"]
    markers, damaged = read_at(store, [one.entry.key for one in found if one.kind == "marker"])
    for key, why in damaged.items():
        audit.problems.append(Damage(str(why), key.split("/")[1], key=key, unreadable=isinstance(why, Unreadable)))
    letters = read_letters(store)
    broken = [letter for letter in letters.values() if letter.kind == "damaged" and letter.request is None]
    audit.extend(Damage(one.cause, one.video_id, key=layout.dead_letter_key(one.video_id)) for one in broken)
    finishes, faults = read_finishes(store, finished_of(found))
    for key, why in faults.items():
        audit.problems.append(Damage(str(why), key.split("/")[1], key=key, unreadable=isinstance(why, Unreadable)))
    commits = arrange(markers.values(), done, letters.values(), read_log(store).withheld)
    return replace(commits, finishes=finishes)


def check_video(store: Store, run: RunRecord, commits: Commits, video_id: str, finished: bool) -> Iterator[Damage]:
    """Markers against run record, plan and each other; DONE and playlist against the markers."""
    markers = commits.all(video_id)
    planned = run.plan["videos"].get(video_id)
    if planned is None:
        yield Damage("is not part of this run", video_id)
        return
    yield from chain(check_markers(run, markers), check_continuity(commits.markers.get(video_id, ())))
    if video_id in commits.done:
        chunks = chunks_of(markers)
        counts = {"segments": len(markers), "chunks": len(chunks), "frames": sum(chunk.frames for chunk in chunks)}
        for name, number in counts.items():
            if number != planned[name]:
                yield Damage(f"is marked done with {number} {name}, planned were {planned[name]}", video_id)
        yield from check_done(store, video_id, markers)
    elif finished and video_id not in commits.dead_letters:
        yield Damage("is neither done nor a dead letter, though the run is marked finished", video_id)
    yield from check_playlist(store, commits, video_id, finished)


def check_text(store: Store, key: str) -> Iterator[Damage]:
    def read(data: bytes) -> None:
        if why := fault_of(data, key):
            raise ObjectError(f"the encoded text is damaged: {why}")

    yield from check_sound(store, key, read, missing=None)  # made anew since it was listed


def check_done(store: Store, video_id: str, markers: tuple[SegmentMarker, ...]) -> Iterator[Damage]:
    def read(data: bytes) -> None:
        if data != to_json(done_marker(video_id, markers)):
            raise ObjectError("DONE does not agree with the segment markers")

    yield from check_sound(store, layout.done_key(video_id), read, "is marked done, and DONE is not there", video_id)


def check_playlist(store: Store, commits: Commits, video_id: str, finished: bool) -> Iterator[Damage]:
    """Exactly the committed chunks; while the video renders, the list may lag behind what we read, or be ahead."""
    markers = commits.markers.get(video_id, ())
    done = video_id in commits.done
    closed, key = bool(markers) and (done or finished), layout.playlist_key(video_id)
    if not markers or not (closed or store.exists(key)):  # it may not be there yet, which need not be proven
        return

    def read(data: bytes) -> None:
        text = data.decode(errors="replace")
        if closed:
            wrong = text != playlist(chunks_of(markers), markers[0].fps, done)
        else:
            listed = [line for line in text.splitlines() if line and not line.startswith("#")]
            named = [chunk.key.rpartition("/")[2] for chunk in chunks_of(markers)]
            wrong = any(name != other for name, other in zip(listed, named, strict=False))
        if wrong:
            raise ObjectError("the playlist does not list the committed chunks")

    yield from check_sound(store, key, read, "has no playlist" if closed else None, video_id)
    if closed:
        yield from check_master(store, video_id, markers)


def check_master(store: Store, video_id: str, markers: Sequence[SegmentMarker]) -> Iterator[Damage]:
    """Of a closed playlist; older versions wrote none."""
    wanted = master(markers)

    def read(data: bytes) -> None:
        if data.decode(errors="replace") != wanted:
            raise ObjectError("the master playlist does not say what the markers do")

    if wanted is not None:
        yield from check_sound(store, layout.master_key(video_id), read, "has no master playlist", video_id)


def counts(commits: Commits, checks: list[ObjectCheck], sizes: dict[str, int], rows: int) -> dict[str, int]:
    chunks = [chunk for video_id in commits.markers for chunk in chunks_of(commits.all(video_id))]
    lists = (layout.playlist_key, layout.master_key)
    named = {check.key for check in checks} | {key(video_id) for video_id in commits.markers for key in lists}
    return {
        "videos": len(commits.markers),
        "done": len(commits.done),
        "segments": sum(len(commits.all(video_id)) for video_id in commits.markers),
        "chunks": len(chunks),
        "frames": sum(chunk.frames for chunk in chunks),
        "bytes": sum(chunk.bytes for chunk in chunks),
        "objects": len(checks),
        "rows": rows,
        "orphans": len(sizes.keys() - named),
    }
