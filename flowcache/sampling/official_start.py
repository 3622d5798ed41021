"""UniPC over fewer steps that begins as the official program with all of them does, fault included: free, too."""

from dataclasses import dataclass, replace

from flowcache.cache.policy import Policy
from flowcache.sampling.multistep import Resolved
from flowcache.sampling.plan import SamplingPlan, Settings
from flowcache.sampling.solver import UniPC


@dataclass(frozen=True)
class OfficialStart(Resolved):
    """A family's settings, where each chunk's first correction starts from the first step of `every` (`UniPC`).

    every: the same with all steps. ValueError by `plan` where its solver is another one.
    """

    every: Settings

    def plan(self, frames: int, policy: Policy, given: int = 0) -> SamplingPlan:
        """See `Settings.plan`."""
        plan, every = (settings.plan(frames, policy, given) for settings in (self.own, self.every))
        if not isinstance(plan.solver, UniPC) or not isinstance(every.solver, UniPC):
            raise ValueError(f"{type(plan.solver).__name__} has no official start; accepted: UniPC")
        solver = UniPC(plan.solver.noise_levels, overwritten=every.solver.noise_levels)
        return replace(plan, solver=solver, told="UniPC, official start")
