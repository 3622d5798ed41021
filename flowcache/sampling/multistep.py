"""Adams-Bashforth of order 2 over uneven times: the better solver where a family's own is Euler, for fewer steps."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from flowcache.cache.policy import Policy
from flowcache.sampling.plan import SamplingPlan, Settings
from flowcache.sampling.solver import Euler

START = ()


@dataclass(frozen=True)
class AdamsBashforth:
    """Straight through the velocities of this step and of the one before; the first step is Euler's."""

    times: tuple[float, ...]
    start: tuple[()] = START

    @property
    def carried(self) -> tuple[float, ...]:
        """See `plan.Timed`."""
        return tuple(time - self.times[0] for time in self.times)

    def step(
        self,
        index: int,
        velocity: Tensor,
        sample: Tensor,
        state: tuple[Tensor, ...],
        noise: Callable[[], Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Solver.step`; state: the velocity of the step before, none at first."""
        length = self.times[index + 1] - self.times[index]
        slope = velocity
        if state:
            bend = length / (2 * (self.times[index] - self.times[index - 1]))
            slope = velocity + bend * (velocity - state[0])
        return sample + length * slope, (velocity,)


@dataclass(frozen=True)
class Resolved:
    """A family's settings, to be planned by another solver than its own."""

    own: Settings

    @property
    def chunk(self) -> int:
        return self.own.chunk

    @property
    def fps(self) -> int:
        return self.own.fps


@dataclass(frozen=True)
class Multistep(Resolved):
    """A family's settings whose Euler steps remember. ValueError by `plan` where its solver is another one."""

    def plan(self, frames: int, policy: Policy, given: int = 0) -> SamplingPlan:
        """See `Settings.plan`."""
        plan = self.own.plan(frames, policy, given)
        if not isinstance(plan.solver, Euler):
            raise ValueError(f"{type(plan.solver).__name__} remembers more than Euler does; accepted: Euler")
        return replace(plan, solver=AdamsBashforth(plan.solver.times), told="Adams-Bashforth")
