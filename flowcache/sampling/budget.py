"""A budget of chunk forwards, spent on a run of fewer steps: what anybody gets without a calibration."""

from bisect import bisect_right
from dataclasses import replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

from flowcache.cache.fixed_steps import FewerSteps, Solver
from flowcache.cache.policy import Policy
from flowcache.sampling.idle import without_idle
from flowcache.sampling.multistep import Multistep
from flowcache.sampling.official_start import OfficialStart
from flowcache.sampling.plan import SamplingPlan, Settings

ROUNDING = 1e-9


@runtime_checkable
class Fewer(Settings, Protocol):
    """Settings whose steps can be made fewer. window: latent frames of a whole one; 0: unknown."""

    @property
    def steps(self) -> int: ...
    @property
    def window(self) -> int: ...

    def fewer(self, steps: int, lag: int | None = None) -> Settings:
        """The same with so few steps; lag: None: chunks as many noise levels behind one another, not as many steps."""
        ...


def fewer_steps(
    settings: Settings, frames: int, policy: Policy, given: int = 0, found: FewerSteps | None = None
) -> SamplingPlan:
    """The plan of `found`, or of the most steps within the policy's budget. ValueError as `steps_within`."""
    every, steps = _able(settings), found.steps if found else steps_within(settings, policy, frames)
    fewer = every.fewer(steps, found.lag if found else None)
    if found:
        fewer = by_solver(fewer, every, found.solver)
    plan = without_idle(fewer.plan(frames, policy.exact, given), policy.exact)
    return replace(plan, told=f"{steps} of {every.steps} steps, {plan.told}, {'as' if found else 'not'} calibrated")


def by_solver(fewer: Settings, every: Settings, solver: Solver) -> Settings:
    """The fewer steps, of `every` one, by that solver (`FewerSteps`)."""
    if solver == "adams-bashforth":
        return Multistep(fewer)
    return OfficialStart(fewer, every) if solver == "official-start" else fewer


@lru_cache
def steps_within(settings: Settings, policy: Policy, frames: int) -> int:
    """How many steps the policy's budget allows, at least one. A whole window decides for all, so that a video's
    segments take the same; frames: of the window where nobody knows how long a whole one is.

    ValueError where the family's steps can't be made fewer.
    """
    every, most = _able(settings), allowed(settings, policy, frames)

    def taken(steps: int) -> int:
        return forwards(every.fewer(steps), policy.exact, frames)

    return max(bisect_right(range(1, every.steps + 1), most + ROUNDING, key=taken), 1)


def allowed(settings: Settings, policy: Policy, frames: int, given: int = 0) -> float:
    """Chunk forwards of a whole window, which its budget lets a policy take; frames: see `steps_within`; given: of one
    that continues, whose frames these are."""
    share = policy.steps.budget if policy.steps else 1.0
    return share * forwards(settings, policy.off or policy.exact, frames, given)


def forwards(settings: Settings, policy: Policy, frames: int, given: int = 0) -> int:
    """Of a chunk, that such a window takes under a policy that computes every step."""
    every = frames if given else whole(settings, frames)
    return count(without_idle(settings.plan(every, policy, given), policy))


def whole(settings: Settings, frames: int) -> int:
    """Latent frames of a whole window; frames: see `steps_within`."""
    return _able(settings).window // settings.chunk * settings.chunk or frames


def count(plan: SamplingPlan) -> int:
    """All that the plan forwards."""
    return sum(len(row.forwards) for row in plan.rows)


def _able(settings: Settings) -> Fewer:
    if not isinstance(settings, Fewer):
        raise ValueError("this sampler takes every step; accepted: a policy without a budget")
    return settings
