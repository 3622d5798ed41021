"""Which K/V of finished chunks are kept: recipes that compute every step, by the official solver."""

from typing import Any

from flowcache.bench.names import Entry
from flowcache.bench.recipe import EXACT, Recipe, solver
from flowcache.families.settings import resolve_policy
from flowcache.records import ModelSpec


def keeping_all(spec: ModelSpec) -> Recipe:
    """What all others are compared with; ValueError where the family keeps no K/V."""
    return _exact(spec, {})


def keeping(entry: Entry, spec: ModelSpec) -> Recipe:
    """ValueError where the model has no such choice, or where it saves no memory."""
    recipe, every = _exact(spec, {"kv": _asked(entry)}), keeping_all(spec)
    held, most = recipe.plan(spec).capacity, every.plan(spec).capacity
    if held < most:
        return recipe
    chunks, why = every.chunks(spec), f"holds K/V of {held} chunks at once, those under way included"
    if most < chunks:
        raise ValueError(f"{why}, and {spec.name} never sees more than {most}: nothing is saved")
    why += f", and a video of {chunks} has no more"
    raise ValueError(f"{why}: nothing is saved; accepted: fewer of them, or a longer video (--chunks)")


def _asked(entry: Entry) -> dict[str, Any]:
    """As rows say it (docs/manifest.md)."""
    if entry.policy == "kv-sink":
        first, latest = map(int, entry.setting.split("+"))
        return {"keep": "sink", "first": first, "chunks": latest}
    return {"keep": entry.policy.removeprefix("kv-"), "chunks": int(entry.setting)}


def _exact(spec: ModelSpec, said: dict[str, Any]) -> Recipe:
    policy = resolve_policy({**EXACT, **said}, spec)
    return Recipe(policy, spec.steps, solver(spec, "official"), said={"reuse": False, **said})
