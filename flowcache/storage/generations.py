"""A run that grew: its record as it was written first, and what each generation added, told as one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from flowcache.errors import masked
from flowcache.storage import layout
from flowcache.storage.documents import Damaged, Generation, RunRecord, canonical, parse, sha256
from flowcache.storage.identity import hash_of, summed
from flowcache.storage.objects.store import Store


def generation_hash(
    before: str, requests: Sequence[dict[str, Any]], models: dict[str, str], numerics: dict[str, str]
) -> str:
    """before: of the generation that is extended. The same rows give the same, whenever they are added."""
    return sha256(canonical([before, hash_of(requests, models, numerics)]))


def grown(store: Store, first: RunRecord) -> RunRecord:
    """The run with all its generations, each asked for by its name: listings may lag. Damaged names a spoilt one."""
    found = [as_generation(first)]
    while (data := store.find(layout.generation_key(first.run_id, len(found) + 1))) is not None:
        found.append(_read(store, first, len(found) + 1, found[-1].spec_hash, data))
    return merged(first, found) if len(found) > 1 else first


def _read(store: Store, first: RunRecord, number: int, before: str, data: bytes) -> Generation:
    name = masked(store.uri(layout.generation_key(first.run_id, number)))
    try:
        one = parse(Generation, data, name)
        whole = one.spec_hash == generation_hash(before, one.requests, one.models, first.numerics)
        planned = summed(one.plan["videos"]) == one.plan
        if not (whole and planned and (one.run_id, one.number) == (first.run_id, number)):
            raise Damaged(f"{name} is damaged: its requests, plan and models are not those of its hash")
        return one
    except (KeyError, TypeError, AttributeError) as fault:
        raise Damaged(f"{name} is damaged: no valid Generation ({fault!r:.60})") from fault
    except Damaged as damage:
        raise Damaged(f"{damage}. Without it, `flowcache render --extend` with its manifest writes it anew") from damage


def as_generation(first: RunRecord) -> Generation:
    """The run record as generation 1."""
    same = ("run_id", "spec_hash", "created", "flowcache_version", "models", "plan", "requests", "rejected")
    added = [request["id"] for request in first.requests]
    return Generation(number=1, added=added, corrected=[], left=[], **{name: getattr(first, name) for name in same})


def generations(run: RunRecord) -> tuple[Generation, ...]:
    """From the first on."""
    return run.grown or (as_generation(run),)


def merged(run: RunRecord, every: Sequence[Generation]) -> RunRecord:
    """The run, whose generations these are."""
    requests, rejected = dict[str, dict[str, Any]](), list[dict[str, Any]]()
    later, videos, models = dict[str, str](), dict[str, Any](), dict[str, str]()
    for one in every:
        requests |= {request["id"]: request for request in one.requests}
        videos |= one.plan["videos"]
        models |= one.models
        rejected = rejected if one.rejected is None else one.rejected
        if one.number > 1:
            later |= dict.fromkeys([*one.added, *one.corrected], one.spec_hash)
    told = {"requests": list(requests.values()), "rejected": rejected, "plan": summed(videos), "models": models}
    return replace(run, **told, grown=tuple(every), later=later)


def changes(every: Sequence[Generation]) -> Iterator[tuple[int, dict[str, str], dict[str, dict[str, Any]]]]:
    """Of each generation its number, what it did with each video of the root, and their requests from then on."""
    requests = dict[str, dict[str, Any]]()
    for one in every:
        requests = requests | {request["id"]: request for request in one.requests}
        done = dict.fromkeys(requests, "unchanged") | dict.fromkeys(one.left, "left")
        done |= {request["id"]: "labelled" for request in one.requests}
        done |= dict.fromkeys(one.corrected, "corrected") | dict.fromkeys(one.added, "added")
        yield one.number, done, requests
