"""Extends a run by the rows of another manifest. Whoever does so holds the root (`ownership`)."""

import time
from collections.abc import Callable

from flowcache.errors import InputError, Problem, masked
from flowcache.storage import layout
from flowcache.storage.commits import clear_dead_letter, list_commits, withdraw_success
from flowcache.storage.documents import Generation, RunRecord, canonical, to_json
from flowcache.storage.generations import generation_hash, generations, merged
from flowcache.storage.growth import Growth, Terms, compare, faults
from flowcache.storage.identity import summed
from flowcache.storage.objects.store import Store
from flowcache.storage.repair import mend_video


def extend(store: Store, root: RunRecord, record: RunRecord, terms: Terms, note: Callable[[str], None]) -> RunRecord:
    """The root's run with the rows of `record`, written down as its next generation; as it is, where none is new.

    root: as `begin_run` gave it. InputError where a row asks otherwise for what was rendered, by now.
    """
    growth = compare(root, record, list_commits(store))
    if problems := faults(store.url, root, record, growth, terms):
        raise InputError(problems)
    rejected = rejections(root, record, terms)
    same_rejected = canonical(rejected) == canonical(root.rejected)
    if growth.fits and same_rejected:
        return root
    one = generation(root, record, growth, terms, None if same_rejected else rejected)
    withdraw_success(store)
    key = layout.generation_key(root.run_id, one.number)
    if not store.create(key, to_json(one)):
        raise InputError([Problem(masked(store.url), "output", "was extended by somebody else meanwhile. Try again")])
    run = merged(root, [*generations(root), one])
    note(f"generation {one.number} of run {root.run_id}: {summary(growth)}")
    for name in growth.corrected:
        mend_video(store, run, name, set(), ["its row was corrected"])
        store.delete(layout.init_key(name))
        clear_dead_letter(store, name)
    return run


def generation(
    root: RunRecord, record: RunRecord, growth: Growth, terms: Terms, rejected: list[dict] | None
) -> Generation:
    """What `record` adds."""
    before = generations(root)[-1]
    wanted = {*growth.added, *growth.corrected, *growth.told}
    requests = [request for request in record.requests if request["id"] in wanted]
    models = {name: record.models[name] for name in sorted({request["model"] for request in requests})}
    videos = {request["id"]: record.plan["videos"][request["id"]] for request in requests}
    return Generation(
        run_id=root.run_id,
        number=before.number + 1,
        spec_hash=generation_hash(before.spec_hash, requests, models, root.numerics),
        created=time.time(),
        flowcache_version=record.flowcache_version,
        models=models,
        plan=summed(videos),
        requests=requests,
        added=list(growth.added),
        corrected=list(growth.corrected),
        left=[] if terms.part else list(growth.left),
        rejected=rejected,
    )


def rejections(root: RunRecord, record: RunRecord, terms: Terms) -> list[dict]:
    """Of the root from now on: this manifest's, and those of before on which it says nothing."""
    videos = {request["id"] for request in record.requests} | {one["video"] for one in record.rejected if one["video"]}
    places = {(one["file"], one["row"]) for one in record.rejected}
    files = {file for file, _ in terms.rows.values()} | {terms.manifest}
    before = [
        one
        for one in root.rejected
        if one["video"] not in videos
        and (one["file"], one["row"]) not in places
        and (terms.part or one["file"] not in files)
    ]
    return before + record.rejected


def summary(growth: Growth) -> str:
    """How many rows of each kind."""
    kinds = (("added", growth.added), ("corrected", growth.corrected), ("labelled anew", growth.told))
    said = [f"{len(ids):,} {word}" for word, ids in (*kinds, ("unchanged", growth.unchanged)) if ids]
    return ", ".join(said) + (
        f"; {len(growth.left):,} of the root are not in this manifest, and stay" * bool(growth.left)
    )
