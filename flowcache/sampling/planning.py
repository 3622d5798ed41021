"""The plan that a window follows: the family's, of which only what counts is run."""

from dataclasses import replace
from functools import cache, lru_cache

from flowcache.cache.fixed_steps import Calibration, FewerSteps, FixedSteps, Preset
from flowcache.cache.policy import Policy
from flowcache.sampling.budget import ROUNDING, allowed, count, fewer_steps, steps_within, whole
from flowcache.sampling.idle import without_idle
from flowcache.sampling.plan import SamplingPlan, Settings
from flowcache.sampling.thinned import thinned


def plan_for(settings: Settings, frames: int, policy: Policy, given: int = 0) -> SamplingPlan:
    """`Settings.plan`, within the policy's budget (`thinned`, `fewer_steps`), without what nothing sees
    (`without_idle`).

    ValueError also for a rule, a step cache or a budget that this plan or its solver does not go with.
    """
    plan, cache = settings.plan(frames, policy, given), policy.step_cache()
    if cache.jumps and plan.solver.start is not None:
        solver = type(plan.solver).__name__
        why = f"{type(cache).__name__} passes by the solver, and {solver} goes on from what it did in the steps before"
        raise ValueError(f"policy {policy.name!r}: {why}; accepted: a step cache that gives it a velocity")
    if policy.reuse and policy.reuse.joint and not plan.timesteps:
        why = f"{type(policy.reuse).__name__} decides by the timesteps of all chunks, which this sampler does not tell"
        raise ValueError(f"policy {policy.name!r}: {why}; accepted: a rule that decides for each chunk")
    if policy.steps is None:
        return without_idle(plan, policy)
    found = preset_of(settings, policy, frames, given // settings.chunk * settings.chunk)
    if not isinstance(found, Calibration):
        return _warned(fewer_steps(settings, frames, policy, given, found), policy.steps)
    exact, plan = without_idle(plan, policy), without_idle(thinned(plan, found), policy)
    run = {forward for row in plan.rows for forward in row.forwards}
    every = (forward for row in exact.rows for forward in row.forwards if forward.step >= 0)
    plan = replace(plan, spared=tuple(forward for forward in every if forward not in run))
    return _warned(plan, policy.steps)


ENOUGH = 0.8  # of what fewer steps take within a budget, where a preset of another one was measured to be as close


@lru_cache
def preset_of(settings: Settings, policy: Policy, frames: int, given: int = 0) -> Preset | None:
    """Of what was calibrated the one of the largest budget whose forwards of a whole window the policy's allows; where
    none of its own is among those that fit, it has to take ENOUGH. frames: see `steps_within`; given: whole chunks of
    them, so that the window has no first one."""
    frames = max(whole(settings, frames), frames if given else 0)
    plan, steps = settings.plan(frames, policy, given), policy.steps
    if not steps or not plan.conditions:
        return None
    most = allowed(settings, policy, frames, given) + ROUNDING
    every = steps_within(settings, policy, frames) == plan.steps

    @cache
    def taken(made: Preset) -> int:
        if isinstance(made, FewerSteps):
            return count(fewer_steps(settings, frames, policy, given, made))
        return count(without_idle(thinned(plan, made), policy))

    presets = steps.presets(plan.conditions, plan.linear)
    found = next((made for made in presets if taken(made) <= most), None)
    if found is None:
        return None
    own = any(made.budget == steps.budget and taken(made) <= most for made in presets)
    if not own and taken(found) < ENOUGH * count(fewer_steps(settings, frames, policy, given)):
        return None
    return None if found.budget != steps.budget and every else found  # nothing is left to spare


def _warned(plan: SamplingPlan, steps: FixedSteps) -> SamplingPlan:
    """Of a quality floor it tells what that may cost, or that nothing is judged by it."""
    if steps.floor is None:
        return plan
    if not plan.calibration or not plan.calibration.judges:
        return replace(plan, told=f"{plan.told}; quality_floor judges nothing, as nobody looked what it leaves out")
    larger = ", then ".join([*(f"at {budget:g}" for budget in steps.larger(plan.calibration)), "every step"])
    seen = f"{steps.floor:g} times what calibration saw"
    return replace(plan, told=f"{plan.told}; where residuals exceed {seen}, again {larger}: more forwards than said")
