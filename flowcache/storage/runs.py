"""One output root holds one run, which may grow: its record, its identity, and the refusal of any other."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from flowcache.errors import InputError, NoRun, Problem, StoreError, masked
from flowcache.records import RenderRequest, Segment
from flowcache.storage import layout
from flowcache.storage.claims import abandoned, claim, replace
from flowcache.storage.committed import list_commits
from flowcache.storage.documents import Damaged, RunRecord, canonical, parse, to_json
from flowcache.storage.generations import grown
from flowcache.storage.growth import Terms, compare, faults
from flowcache.storage.identity import MEDIA_SUMS, hash_of, plan_totals, spec_hash, summed
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import whose

PLAIN = Terms()


def without_credentials(request: RenderRequest) -> dict[str, Any]:
    """The request as the store may show it: of signed URLs only what they name."""
    fields = request.to_dict()
    urls = {name: masked(fields[name]) for name in ("image", "video", "end_image") if fields[name]}
    return {**fields, **urls}


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


def begin_run(
    store: Store, record: RunRecord, terms: Terms = PLAIN, note: Callable[[str], None] = lambda message: None
) -> RunRecord:
    """Claim the root for `record`, or take up the run that is there, if it renders the same or may be extended to.

    Returns the root's run, not yet extended (`extend`). InputError naming what differs where it holds another one, of
    which something is committed or whose last driver did not say that it ended. note: tells the operator.
    """
    root = root_run(store, record)
    if root is None:
        owner = claim(store, record.run_id)
        data = store.find(layout.run_key(owner)) if owner else None
        root = run_at(store, layout.run_key(owner), data, None) if owner and data else None
        if owner is not None and root is None:
            give_way(store, owner, record, [unclear(store)], note)
    if root is not None:
        problems = refusals(store, root, record, terms)
        if not problems:
            if whose(store) is None:
                claim(store, root.run_id)
            return root
        give_way(store, root.run_id, record, problems, note)
    key = layout.run_key(record.run_id)
    created = store.create(key, to_json(record))
    return record if created else run_at(store, key, store.get(key), record)


def give_way(store: Store, old: str, record: RunRecord, problems: list[Problem], note: Callable[[str], None]) -> None:
    """The run `old` gives way to `record`, if it is abandoned; else InputError with the problems."""
    if not abandoned(store):
        raise InputError(problems)
    note(f"nothing was committed of run {old or 'that'} there: run {record.run_id} takes its place")
    replace(store, old, record.run_id)


def root_run(store: Store, ours: RunRecord | None = None) -> RunRecord | None:
    """The root's run with all its generations, None where there is none. ours: see `run_at`. StoreError where several
    are there, and none says whose it is."""
    owner = whose(store)
    data = store.find(layout.run_key(owner)) if owner else None
    if owner and data is not None:
        return grown(store, run_at(store, layout.run_key(owner), data, ours))
    runs = read_runs(store, ours)
    if ours is not None:  # the run that was not begun by a driver that died, or another's
        runs = [run for run in runs if run.spec_hash != ours.spec_hash][:1] or runs
    if len(runs) > 1:
        names = ", ".join(run.run_id for run in runs)
        raise StoreError(f"{masked(store.url)} holds records of several runs ({names}), and none says whose it is")
    return grown(store, runs[0]) if runs else None


def refusals(store: Store, root: RunRecord, record: RunRecord, terms: Terms) -> list[Problem]:
    """Why `record` can't be rendered there; [] where it can."""
    if root.spec_hash == record.spec_hash and not root.grown:
        return []
    growth = compare(root, record, list_commits(store))
    return faults(store.url, root, record, growth, terms)


def unclear(store: Store) -> Problem:
    message = "is claimed by another run, which begins there now. Give another output, or wait for its end"
    return Problem(masked(store.url), "output", message)


def read_runs(store: Store, ours: RunRecord | None = None) -> list[RunRecord]:
    """Without those that are withdrawn while we read. ours: takes the place of a damaged one of the same run."""
    keys = [found.entry.key for found in listed(store, layout.RUNS, "run")]
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
        if summed(run.plan["videos"]) != run.plan:
            return "its plan does not add up"
        for problem in run.rejected:
            Problem(**problem)
        if not all(isinstance(one.get(name), str | None) for one in run.requests for name in MEDIA_SUMS):
            return "a picture or video in it has no name"
        known = all(not one.get(name) or one.get(sha) for one in run.requests for name, sha in MEDIA_SUMS.items())
        if known and hash_of(run.requests, run.models, run.numerics) != run.spec_hash:
            return "its requests, models and settings are not those of its hash"
    except (KeyError, TypeError, AttributeError) as fault:
        return f"no valid RunRecord ({fault!r:.60})"
    if ours and ours.spec_hash == run.spec_hash and canonical(ours.plan) != canonical(run.plan):
        return "its plan is not that of its requests"
    return None


def read_run(store: Store) -> RunRecord:
    """The root's run with all its generations; NoRun where there is none."""
    run = root_run(store)
    if run is None:
        raise NoRun(f"{masked(store.url)} holds no run; was it rendered with --output {masked(store.url)}?")
    return run
