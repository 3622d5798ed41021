"""A plan whose chunks take some of their steps only: a grid with larger gaps, which the solver crosses in one step."""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from flowcache.cache.fixed_steps import Calibration
from flowcache.cache.fixed_steps import Solver as Base
from flowcache.sampling.calibrated import Calibrated
from flowcache.sampling.plan import SamplingPlan, SamplingStep, Solver, Timed
from flowcache.sampling.solver import UniPC


@runtime_checkable
class Jumps(Timed, Protocol):
    """A solver that can stand at some of its times alone."""

    def over(self, computed: tuple[int, ...]) -> Solver:
        """The same from each of these steps to the next of them, and from the last to the end."""
        ...


def thinned(plan: SamplingPlan, made: Calibration) -> SamplingPlan:
    """ValueError where the solver knows nothing of this, or what was fitted has other coefficients than it takes.

    What is left out was no step: reused outputs never enter what the solver remembers. K/V stay those of a chunk's last
    computed step; forwards without a step are as they were.
    """
    if not isinstance(plan.solver, Jumps):
        raise ValueError(f"{type(plan.solver).__name__} takes every step; accepted: a policy without a budget")
    rows = [_of(row, made) for row in plan.rows]
    while not rows[-1].steps:  # after the last step nobody sees anything
        rows.pop()
    solver, own = _base(plan.solver, made.base), made.conditions.guidance
    strength = plan.conditions.guidance / own if plan.conditions and plan.linear else 1.0
    opening, later = (
        Calibrated(solver.over(computed), plan.guide, computed, coefficients, strength)
        for computed, coefficients in ((made.steps_of(0), made.first), (made.computed, made.later))
    )
    told = "calibrated" if made.target == "off" else f"calibrated to the {made.target} walk"
    told = told if strength == 1 else f"{told} at guidance {own:g}"
    first = f" ({len(made.first_computed)} of a window's first chunk)" if made.first_computed else ""
    found = replace(
        plan, rows=tuple(rows), computed=made.computed, solver=later, opening=opening, guide=_each, calibration=made,
        told=f"{len(made.computed)} of {plan.steps} steps{first}, {plan.told}, {told}",
    )  # fmt: skip
    if any((*made.first, *made.later)):
        chunks = {chunk for row in rows for chunk in row.steps}
        _try(found, min(chunks))
        _try(found, max(chunks))
    return found


def _try(plan: SamplingPlan, chunk: int) -> None:
    """The chunk's steps, with latents of no element. ValueError where one can't be taken."""
    solver, latents = plan.solver_of(chunk), torch.empty(0)
    state = solver.start
    for place, step in enumerate(plan.steps_of(chunk)):
        run = {each.branch for row in plan.rows for each in row.forwards if (each.chunk, each.step) == (chunk, step)}
        weighty = [branch for branch in run if (step, branch) not in plan.weightless]
        latents, state = solver.step(place, torch.empty(len(weighty), 0), latents, state, lambda: torch.empty(0))


def _of(row: SamplingStep, made: Calibration) -> SamplingStep:
    kept = (each for each in row.forwards if each.step < 0 or each.step in made.steps_of(each.chunk))
    return replace(row, forwards=tuple(kept))


def _base(solver: Jumps, base: Base) -> Jumps:
    """The plan's solver, of all steps, as that one (`cache.fixed_steps.Calibration`)."""
    if base == "official-start" and isinstance(solver, UniPC):
        return UniPC(solver.noise_levels, overwritten=solver.noise_levels)
    if base != "own":
        raise ValueError(f"{type(solver).__name__} has no {base}; accepted: own")
    return solver


def _each(step: int, velocities: list[Tensor]) -> Tensor:
    """[branches, C, f, H, W]: `Calibrated` guides itself."""
    return torch.stack(velocities)
