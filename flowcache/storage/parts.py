"""The parts of the Parquet tables: which video stands in which, and what each was made from."""

from collections.abc import Iterator

from flowcache.storage import layout
from flowcache.storage.commits import Listing
from flowcache.storage.documents import RunRecord, canonical, sha256
from flowcache.storage.generations import generations
from flowcache.storage.objects.store import Store
from flowcache.storage.schemas import CHUNKS, MANIFESTS, VIDEOS
from flowcache.storage.typed import read_json

ROWS_PER_PART = 100_000
TABLES = {"videos": VIDEOS, "chunks": CHUNKS}


def stored_parts(store: Store, run: RunRecord) -> dict[str, str]:
    """Fingerprints of the parts as they were written, by number; nothing where that is lost or damaged."""
    try:
        stored = read_json(store.find(layout.parts_key(run.run_id)) or b"{}")
    except (ValueError, RecursionError):
        return {}
    pairs = stored.items() if isinstance(stored, dict) else ()
    return {name: made for name, made in pairs if isinstance(made, str)}


def outdate(store: Store, run: RunRecord, listing: Listing) -> None:
    """Forget the parts that were made from other markers than are there now.

    To be called before anything is rendered: a marker that comes again under the name of one that was taken away is
    another attempt's, which its name does not tell.
    """
    stored, wanted = stored_parts(store, run), fingerprints(run, listing)
    right = {name: stored[name] for name in stored if made_from(stored[name]) == made_from(wanted.get(name))}
    if right != stored:
        store.put(layout.parts_key(run.run_id), canonical(right))


def videos_by_part(run: RunRecord) -> Iterator[list[str]]:
    """The videos of each part: by id, as many as have ROWS_PER_PART chunks when all is done. Those that came with a
    generation have parts of their own, so that what stood in one before stays there."""
    for one in generations(run):
        part: list[str] = []
        room = ROWS_PER_PART
        for name in sorted(one.added):
            chunks = run.plan["videos"][name]["chunks"]
            if part and chunks > room:
                yield part
                part, room = [], ROWS_PER_PART
            part.append(name)
            room -= chunks
        if part or one.number == 1:
            yield part  # even an empty one: its table still shows the columns


def table_keys(run: RunRecord) -> list[list[str]]:
    """Of each part its objects, one a table."""
    parts = enumerate(videos_by_part(run))
    return [[layout.part_key(name, run.run_id, number) for name in TABLES] for number, _ in parts]


def manifest_keys(run: RunRecord) -> list[str]:
    """Of a run that grew, where the rows of each generation stand."""
    return [layout.manifest_key(run.run_id, one.number) for one in run.grown]


def fingerprints(run: RunRecord, listing: Listing) -> dict[str, str]:
    """What everything below meta/ is made from, by the number of the part or the key of the generation."""
    parts = {str(n): fingerprint(run, n, videos, listing) for n, videos in enumerate(videos_by_part(run))}
    lists = zip(manifest_keys(run), run.grown, strict=True)
    return parts | {
        key: sha256(canonical([str(MANIFESTS), one.spec_hash, one.created, one.rejected])) for key, one in lists
    }


def fingerprint(run: RunRecord, number: int, videos: list[str], listing: Listing) -> str:
    """Of all that decides on the rows of these videos: the names of markers (see `outdate`), then, where a generation
    changed what stands beside them, which one did."""
    states = [
        [name, listing.segments.get(name), name in listing.done, listing.dead_letters.get(name),
         *([str(listing.withheld[name])] if name in listing.withheld else []),
         *([{"finished": sorted(listing.finished[name])}] if name in listing.finished else [])]
        for name in videos
    ]  # fmt: skip
    made = sha256(canonical([str(VIDEOS), str(CHUNKS), states]))
    later, here = run.grown[1:], set(videos)
    said = [
        [one.number, sorted(request["id"] for request in one.requests if request["id"] in here.difference(one.added))]
        for one in later
    ]
    told = [pair for pair in said if pair[1]] + [
        one.number for one in later if number == 0 and one.rejected is not None
    ]
    return f"{made}-{sha256(canonical(told))[:16]}" if told else made


def made_from(fingerprint: str | None) -> str | None:
    """What it says of markers."""
    return fingerprint if fingerprint is None else fingerprint.partition("-")[0]
