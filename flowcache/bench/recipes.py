"""How each policy by name is run on a model: steps, solver, and the policy as the denoise loop takes it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flowcache.bench.names import AB2, OWN, Entry
from flowcache.cache.magnitude import KeptResidual, MagnitudeReuse, Magnitudes, Measured, MeasureMagnitudes
from flowcache.cache.policy import Policy
from flowcache.cache.step_cache import CacheOf, RepeatIncrement
from flowcache.cache.taylor import EveryNth, ForecastResidual
from flowcache.cache.together import TokensTogether
from flowcache.families.known import family
from flowcache.families.policies import by_preset
from flowcache.families.settings import resolve_policy, settings_of
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.sampling.budget import steps_within
from flowcache.sampling.multistep import Multistep
from flowcache.sampling.plan import Settings
from flowcache.sampling.planning import plan_for
from flowcache.worker.windows import FINER

Ratios = tuple[tuple[float, ...], ...]  # see `MagnitudeReuse`
EXACT = {"name": "flowcache", "reuse": False}  # every step; K/V of finished chunks are kept, not made anew


@dataclass(frozen=True)
class Recipe:
    """Two that are equal give the same video. said: of the policy in a request; multistep: not Euler but `Multistep`.

    solver: of a request, where the family has a choice.
    """

    policy: Policy
    steps: int
    solver: str | None
    multistep: bool = False
    said: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def request(self, spec: ModelSpec, prompt: str, seed: int) -> RenderRequest:
        """One window, of the model's own length at most."""
        frames = min(spec.frames, spec.video_frames(spec.window))
        return RenderRequest(
            "bench", (Shot(prompt, frames),), spec.width, spec.height, spec.fps, seed, spec.guidance, self.steps,
            spec.name, {"name": self.policy.name, **self.said}, spec.negative_prompt, solver=self.solver,
        )  # fmt: skip

    def settings(self, request: RenderRequest, spec: ModelSpec) -> Settings:
        own = settings_of(request, spec)
        return Multistep(own) if self.multistep else own

    def told(self, spec: ModelSpec) -> str:
        """How its steps are taken. ValueError where the model can't follow it."""
        request = self.request(spec, "", 0)
        settings = self.settings(request, spec)
        return plan_for(settings, spec.latent_frames(request.frames) // spec.chunk * spec.chunk, self.policy).told


def off(spec: ModelSpec) -> Recipe:
    return Recipe(resolve_policy({"name": "off"}, spec), spec.steps, _solver(spec, "official"))


def converged(spec: ModelSpec) -> Recipe:
    """So many more steps that more of them would change little, by the right solver. ValueError as `recipes`."""
    return Recipe(resolve_policy(EXACT, spec), spec.steps * FINER, _solver(spec, "corrected"))


def measuring(spec: ModelSpec, into: Magnitudes) -> Recipe:
    """For the ratios that `magcache` goes by: every step, as officially."""
    policy = Policy("magcache", Measured(), "refresh", cache=CacheOf(MeasureMagnitudes, (into,)))
    return Recipe(policy, spec.steps, _solver(spec, "official"))


def recipes(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    """Of an entry, mostly one. ValueError says why the model can't be run so."""
    found = _MAKERS[entry.policy](entry, spec, ratios)
    for _, recipe in found:
        recipe.told(spec)
    return found


def _solver(spec: ModelSpec, name: str) -> str | None:
    return name if "solver" in family(spec.family).traits.fields else None


def _named(entry: Entry, spec: ModelSpec, said: Mapping[str, Any], solver: str) -> list[tuple[Entry, Recipe]]:
    policy = resolve_policy({"name": entry.policy, **said}, spec)
    return [(entry, Recipe(policy, spec.steps, _solver(spec, solver), said=said))]


def _budget(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    return _named(entry, spec, {"budget": float(entry.setting)}, "corrected")


def _preset(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    return _named(entry, spec, {"preset": entry.setting}, "official")


def _fewer(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    """By the right solver, chunks as many noise levels behind one another as ever. Where a family's solver is Euler,
    whose second order wins at some budgets and loses at others, both."""
    (_, recipe), *_ = _officially_fewer(entry, spec, ratios)
    recipe = replace(recipe, solver=_solver(spec, "corrected"))
    found, better = [(entry, recipe)], replace(recipe, multistep=True)
    try:
        better.told(spec)
    except ValueError:  # the family's own is of a higher order
        return found
    return [*found, (replace(entry, setting=entry.setting + AB2), better)]


def _officially_fewer(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    """As many steps as that budget of ours allows, all else as the official program has it."""
    said = {"budget": float(entry.setting)}
    ours = Recipe(resolve_policy({"name": OWN, **said}, spec), spec.steps, _solver(spec, "corrected"), said=said)
    request = ours.request(spec, "", 0)
    steps = steps_within(ours.settings(request, spec), ours.policy, spec.latent_frames(request.frames))
    return [(entry, Recipe(resolve_policy(EXACT, spec), steps, _solver(spec, "official")))]


def _teacache(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    if any(policy.name == "teacache" for policy in family(spec.family).policies):
        return _preset(entry, spec, ratios)
    given = {"name": "teacache", "preset": entry.setting}
    rule = by_preset(given, spec, TokensTogether)
    policy = Policy("teacache", rule, "refresh", cache=CacheOf(RepeatIncrement))
    return [(entry, Recipe(policy, spec.steps, _solver(spec, "official")))]


def _magcache(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    rule = MagnitudeReuse(ratios, float(entry.setting))
    policy = Policy("magcache", rule, "refresh", cache=CacheOf(KeptResidual))
    return [(entry, Recipe(policy, spec.steps, _solver(spec, "official")))]


def _taylorseer(entry: Entry, spec: ModelSpec, ratios: Ratios) -> list[tuple[Entry, Recipe]]:
    policy = Policy("taylorseer", EveryNth(int(entry.setting)), "refresh", cache=CacheOf(ForecastResidual))
    return [(entry, Recipe(policy, spec.steps, _solver(spec, "official")))]


_MAKERS: Mapping[str, Callable[[Entry, ModelSpec, Ratios], list[tuple[Entry, Recipe]]]] = {
    "flowcache": _budget,
    "fewer-steps": _fewer,
    "fewer-steps-official": _officially_fewer,
    "teacache": _teacache,
    "magcache": _magcache,
    "taylorseer": _taylorseer,
    "paper": _preset,
    "paper-mended": _preset,
}


@dataclass(frozen=True)
class Chosen:
    """What of the entries the model can run. left_out: of `all`, and why."""

    recipes: tuple[tuple[Entry, Recipe], ...]
    left_out: Mapping[Entry, str]


def chosen(entries: Sequence[Entry], own: frozenset[Entry], spec: ModelSpec, ratios: Ratios) -> Chosen:
    """own: those that must be run. ValueError where one of them can't be."""
    found, left_out = list[tuple[Entry, Recipe]](), dict[Entry, str]()
    for entry in entries:
        try:
            found += recipes(entry, spec, ratios)
        except ValueError as error:
            if entry in own:
                raise ValueError(f"{entry.label}: {error}") from error
            left_out[entry] = str(error)
    return Chosen(tuple(found), left_out)
