"""How each policy by name is run on a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowcache.bench.kept import keeping
from flowcache.bench.names import ENDS, OWN, Entry
from flowcache.bench.recipe import EXACT, Recipe, solver
from flowcache.cache.magnitude import KeptResidual, MagnitudeReuse, Magnitudes, Measured, MeasureMagnitudes
from flowcache.cache.policy import Policy
from flowcache.cache.step_cache import CacheOf, RepeatIncrement
from flowcache.cache.taylor import EveryNth, ForecastResidual
from flowcache.cache.together import TokensTogether
from flowcache.families.known import family
from flowcache.families.policies import by_preset
from flowcache.families.settings import resolve_policy
from flowcache.records import ModelSpec
from flowcache.sampling.budget import steps_within
from flowcache.worker.windows import FINER, Target, solvers_for

Ratios = tuple[tuple[float, ...], ...]  # see `MagnitudeReuse`


def off(spec: ModelSpec) -> Recipe:
    return Recipe(resolve_policy({"name": "off"}, spec), spec.steps, solver(spec, "official"))


def converged(spec: ModelSpec) -> Recipe:
    """So many more steps that more of them would change little, by the right solver. ValueError as `recipes`."""
    return Recipe(resolve_policy(EXACT, spec), spec.steps * FINER, solver(spec, "corrected"))


def measuring(spec: ModelSpec, into: Magnitudes) -> Recipe:
    """For the ratios that `magcache` goes by: every step, as officially."""
    policy = Policy("magcache", Measured(), "refresh", cache=CacheOf(MeasureMagnitudes, (into,)))
    return Recipe(policy, spec.steps, solver(spec, "official"))


def recipes(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    """Of an entry, mostly one. ValueError says why the model can't be run so."""
    found = _MAKERS[entry.policy](entry, spec, ratios)
    for _, recipe in found:
        recipe.told(spec)
    return found


def _named(entry: Entry, spec: ModelSpec, said: Mapping[str, Any], by: str) -> list[tuple[Entry, Recipe]]:
    policy = resolve_policy({"name": entry.policy, **said}, spec)
    return [(entry, Recipe(policy, spec.steps, solver(spec, by), said=said))]


def _budget(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    return _named(entry, spec, {"budget": float(entry.setting)}, "corrected")


def _aimed(recipe: Recipe, spec: ModelSpec, target: Target) -> Recipe:
    """A budget with what was calibrated to that target."""
    steps = recipe.policy.steps
    if not steps or target == "off":
        return recipe
    aimed = replace(recipe.policy, steps=replace(steps, target=target))
    return replace(recipe, policy=aimed, said={**recipe.said, "target": target})


def _preset(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    return _named(entry, spec, {"preset": entry.setting}, "official")


def _fewer(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    """By the right solver, chunks as many noise levels behind one another as ever. Where a family's solver is Euler,
    whose second order wins at some budgets and loses at others, both; else also with the fault that `off` has."""
    (_, recipe), *_ = _officially_fewer(entry, spec, ratios)
    recipe = replace(recipe, solver=solver(spec, "corrected"))
    return [
        (replace(entry, setting=entry.setting + ENDS[by]), replace(recipe, by=by))
        for by in solvers_for(recipe.plan(spec), "off")
    ]


def _officially_fewer(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    """As many steps as that budget of ours allows, all else as the official program has it."""
    said = {"budget": float(entry.setting)}
    ours = Recipe(resolve_policy({"name": OWN, **said}, spec), spec.steps, solver(spec, "corrected"), said=said)
    request = ours.request(spec, "", 0)
    steps = steps_within(ours.settings(request, spec), ours.policy, spec.latent_frames(request.frames))
    return [(entry, Recipe(resolve_policy(EXACT, spec), steps, solver(spec, "official")))]


def _teacache(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    if any(policy.name == "teacache" for policy in family(spec.family).policies):
        return _preset(entry, spec, ratios)
    given = {"name": "teacache", "preset": entry.setting}
    rule = by_preset(given, spec, TokensTogether)
    policy = Policy("teacache", rule, "refresh", cache=CacheOf(RepeatIncrement))
    return [(entry, Recipe(policy, spec.steps, solver(spec, "official")))]


def _magcache(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    rule = MagnitudeReuse(ratios, float(entry.setting))
    policy = Policy("magcache", rule, "refresh", cache=CacheOf(KeptResidual))
    return [(entry, Recipe(policy, spec.steps, solver(spec, "official")))]


def _kept(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    return [(entry, keeping(entry, spec))]


def _taylorseer(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    policy = Policy("taylorseer", EveryNth(int(entry.setting)), "refresh", cache=CacheOf(ForecastResidual))
    return [(entry, Recipe(policy, spec.steps, solver(spec, "official")))]


_MAKERS: Mapping[str, Callable[[Entry, ModelSpec, Ratios], list[tuple[Entry, Recipe]]]] = {
    "flowcache": _budget,
    "fewer-steps": _fewer,
    "fewer-steps-official": _officially_fewer,
    "teacache": _teacache,
    "magcache": _magcache,
    "taylorseer": _taylorseer,
    "paper": _preset,
    "paper-mended": _preset,
    "kv-recent": _kept,
    "kv-sink": _kept,
    "kv-compressed": _kept,
}


@dataclass(frozen=True)
class Chosen:
    """What of the entries the model can run. left_out: of `all` and `kv`, and why."""

    recipes: tuple[tuple[Entry, Recipe], ...]
    left_out: Mapping[Entry, str]


def chosen(
    entries: Sequence[Entry], own: frozenset[Entry], spec: ModelSpec, ratios: Ratios, target: Target = "off"
) -> Chosen:
    """own: those that must be run. ValueError where one of them can't be. To another target than `off` nobody wants
    its fault."""
    found, left_out = list[tuple[Entry, Recipe]](), dict[Entry, str]()
    for entry in entries:
        try:
            made = recipes(entry, spec, ratios)
            wanted = (each for each in made if target == "off" or each[1].by != "official-start")
            found += [(own, _aimed(recipe, spec, target)) for own, recipe in wanted]
        except ValueError as error:
            if entry in own:
                raise ValueError(f"{entry.label}: {error}") from error
            left_out[entry] = str(error)
    return Chosen(tuple(found), left_out)
