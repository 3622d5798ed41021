"""One output root holds one run: its record, its identity, and the refusal of any other."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from flowcache.errors import InputError, Problem, StoreError, masked
from flowcache.inputs.options import NUMERICS
from flowcache.records import RenderRequest, Segment
from flowcache.storage import layout
from flowcache.storage.documents import SCHEMA_VERSION, Damaged, RunRecord, canonical, parse, sha256, to_json
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import Owner, whose

MEDIA_SUMS = {"image": "media_sha256", "video": "media_sha256", "end_image": "end_image_sha256"}
TOTALS = ("segments", "chunks", "frames")
SHOWN = 10  # differences named in a message before the rest is only counted


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


def without_credentials(request: RenderRequest) -> dict[str, Any]:
    """The request as the store may show it: of signed URLs only what they name."""
    fields = request.to_dict()
    urls = {name: masked(fields[name]) for name in ("image", "video", "end_image") if fields[name]}
    return {**fields, **urls}


def plan_totals(segments: Iterable[Segment]) -> dict[str, Any]:
    """RunRecord.plan of a planned run: segments, chunks and frames, in all and by video."""
    videos: dict[str, dict[str, int]] = {}
    for segment in segments:
        totals = videos.setdefault(segment.video_id, {"segments": 0, "chunks": 0, "frames": 0})
        totals["segments"] += 1
        totals["chunks"] += segment.chunks
        totals["frames"] += segment.frames
    sums = {name: sum(video[name] for video in videos.values()) for name in TOTALS}
    return {"videos": videos, **sums}


def new_run(
    requests: Sequence[RenderRequest],
    digests: dict[str, str],
    segments: Iterable[Segment],
    flowcache_version: str,
    rejected: Sequence[Problem] = (),
    numerics: dict[str, str] | None = None,
) -> RunRecord:
    """The record of a run that is about to begin. numerics: such as {"dtype": "fp32"}, where one was asked for."""
    identity = spec_hash(requests, digests, numerics or {})
    return RunRecord(
        run_id=identity[:16],
        spec_hash=identity,
        created=time.time(),
        flowcache_version=flowcache_version,
        models=dict(digests),
        plan=plan_totals(segments),
        requests=[without_credentials(request) for request in requests],
        rejected=[asdict(problem) for problem in rejected],
        numerics=numerics or {},
    )


def begin_run(store: Store, record: RunRecord) -> RunRecord:
    """Claim the root for `record`, or take up the run that is there if it renders the same thing.

    Returns the record in the store. InputError naming what differs where the root holds another run.
    """
    key = layout.run_key(record.run_id)
    data = store.find(key) if whose(store) == record.run_id else None
    if data is not None:  # whatever else lies there
        return run_at(store, key, data, record)
    existing = read_runs(store, record)
    others = [run for run in existing if run.spec_hash != record.spec_hash]
    if others:
        raise InputError(differences(masked(store.url), others[0], record))
    claim(store, record)
    if existing:
        return existing[0]
    created = store.create(key, to_json(record))
    return record if created else run_at(store, key, store.get(key), record)


def claim(store: Store, record: RunRecord) -> None:
    """Make the root this run's, by one exclusive key: of drivers that find it empty together one run's go on.

    InputError where it is another run's, which may not have come to write its record.
    """
    ours = canonical(Owner(record.run_id))
    if store.create(layout.OWNER, ours):
        return
    owner = whose(store)
    if owner == record.run_id:
        return
    if owner is not None:
        key = layout.run_key(owner)
        data = store.find(key)
        if data:
            raise InputError(differences(masked(store.url), run_at(store, key, data, None), record))
    if store.exists(layout.run_key(record.run_id)):  # written after its claim: what is there is no claim any more
        store.put(layout.OWNER, ours)
        return
    message = (
        f"is claimed by another run, which has not begun. If no driver is at work there, delete {layout.OWNER} or "
        "give another output"
    )
    raise InputError([Problem(file=masked(store.url), field="output", message=message)])


def read_runs(store: Store, ours: RunRecord | None = None) -> list[RunRecord]:
    """Without those that are withdrawn while we read. ours: takes the place of a damaged one of the same run."""
    keys = [found.entry.key for found in listed(store, layout.RUNS)]
    found = [(key, store.find(key)) for key in keys]
    return [run_at(store, key, data, ours) for key, data in found if data is not None]


def run_at(store: Store, key: str, data: bytes, ours: RunRecord | None) -> RunRecord:
    try:
        run = parse(RunRecord, data, masked(store.uri(key)))
        if layout.run_key(run.run_id) != key or run.run_id != run.spec_hash[:16]:
            raise Damaged(f"{masked(store.uri(key))} is damaged: it is that of run {run.run_id}")
        fault = fault_of(run, ours)
        if fault:
            raise Damaged(f"{masked(store.uri(key))} is damaged: {fault}")
        return run
    except Damaged as damage:
        if ours is None:
            raise Damaged(f"{damage}. `flowcache render` with the run's manifest writes it anew") from damage
        if key != layout.run_key(ours.run_id):
            raise
        store.put(key, to_json(ours))
        return ours


def fault_of(run: RunRecord, ours: RunRecord | None) -> str | None:
    """What is wrong with a record that is one by its fields; None where it is sound. ours: of the same run."""
    try:
        videos = run.plan["videos"]
        sums = {name: sum(video[name] for video in videos.values()) for name in TOTALS}
        if sums != {name: run.plan[name] for name in TOTALS}:
            return "its plan does not add up"
        for problem in run.rejected:
            Problem(**problem)
        known = all(not one.get(name) or one.get(sha) for one in run.requests for name, sha in MEDIA_SUMS.items())
        if known and hash_of(run.requests, run.models, run.numerics) != run.spec_hash:
            return "its requests, models and settings are not those of its hash"
    except (KeyError, TypeError, AttributeError) as fault:
        return f"no valid RunRecord ({fault!r:.60})"
    if ours and ours.spec_hash == run.spec_hash and canonical(ours.plan) != canonical(run.plan):
        return "its plan is not that of its requests"
    return None


def read_run(store: Store) -> RunRecord:
    """The root's run; StoreError where there is none."""
    owner = whose(store)
    data = store.find(layout.run_key(owner)) if owner else None
    if owner and data is not None:
        return run_at(store, layout.run_key(owner), data, None)
    runs = read_runs(store)
    if len(runs) > 1:
        names = ", ".join(run.run_id for run in runs)
        raise StoreError(f"{masked(store.url)} holds records of several runs ({names}), and none says whose it is")
    if not runs:
        raise StoreError(f"{masked(store.url)} holds no run; was it rendered with --output {masked(store.url)}?")
    return runs[0]


def differences(root: str, stored: RunRecord, wanted: RunRecord) -> list[Problem]:
    """What the two runs do not share, as problems of the output root."""
    before = {request["id"]: identity(request) for request in stored.requests}
    after = {request["id"]: identity(request) for request in wanted.requests}
    found = [f"weights of model {name} changed" for name in changed(stored.models, wanted.models)]
    had, want = NUMERICS | stored.numerics, NUMERICS | wanted.numerics
    found += [f"{name} was {had[name]} and is {want[name]}" for name in changed(had, want)]
    found += [f"video {name} is new" for name in sorted(after.keys() - before.keys())]
    found += [f"video {name} is missing" for name in sorted(before.keys() - after.keys())]
    for name in sorted(before.keys() & after.keys()):
        old, new = canonical_fields(before[name]), canonical_fields(after[name])
        fields = changed(old, new)
        if fields:
            found.append(f"video {name} differs in {', '.join(fields)}")
    begun = time.strftime("%Y-%m-%d %H:%M", time.gmtime(stored.created))
    message = (
        f"holds another run ({stored.run_id}, begun {begun} UTC): "
        f"{some_of(found) or 'another schema'}. Give another output, or the manifest, model and settings of that run"
    )
    return [Problem(file=root, field="output", message=message)]


def some_of(found: Sequence[str]) -> str:
    """The first SHOWN of them, and how many more there are."""
    more = len(found) - SHOWN
    return "; ".join(found[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def canonical_fields(request: dict[str, Any]) -> dict[str, bytes]:
    """Each field as JSON, so that tuples equal the lists that they become in the store."""
    return {name: canonical(value) for name, value in request.items()}
