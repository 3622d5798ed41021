"""A solver with a fitted correction: what a jump over several steps leaves out, as a sum of what is at hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowcache.sampling.plan import Solver, carried
from flowcache.sampling.solver import SolverState

Guide = Callable[[int, list[Tensor]], Tensor]


@dataclass(frozen=True)
class Memory:
    """Of a chunk. base: the solver's own; branches [B, C, f, H, W]: velocities of the last computed step; guided: of
    the last two, the newest first.
    """

    base: Any
    branches: Tensor | None = None
    guided: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Calibrated:
    """`base` over the computed steps, and after each of them the sum of `features`, each times its coefficient.

    guide: as in `SamplingPlan`. coefficients: by number of the computed step; an empty one is `base` alone.
    strength: guidance, as a ratio to that of the fit; other than 1 only where it is `SamplingPlan.linear`.
    It takes all branches' velocities [B, C, f, H, W] in place of the guided one.
    """

    base: Solver
    guide: Guide
    computed: tuple[int, ...]
    coefficients: Sequence[tuple[float, ...]]
    strength: float = 1.0

    @property
    def start(self) -> Memory:
        return Memory(self.base.start)

    @property
    def carried(self) -> tuple[float, ...]:
        """See `plan.Timed`; nothing where the base does not say."""
        return carried(self.base)

    def step(
        self, index: int, velocity: Tensor, sample: Tensor, state: Memory, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, Memory]:
        """See `Solver.step`; index: of the computed steps. ValueError where the coefficients are for other features."""
        result, known, after = self.uncorrected(index, velocity, sample, state, noise)
        own = self.coefficients[index]
        if not own:
            return result, after
        if len(own) != len(known):
            raise ValueError(f"step {self.computed[index]} has {len(own)} coefficients; accepted: {len(known)}")
        for coefficient, feature in zip(own, known, strict=True):
            result = result + coefficient * feature
        return result, after

    def uncorrected(
        self, index: int, velocity: Tensor, sample: Tensor, state: Memory, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, list[Tensor], Memory]:
        """The base's result, the features, and what is remembered."""
        guided = self.guide(self.computed[index], list(velocity.unbind()))
        result, base = self.base.step(index, guided, sample, state.base, noise)
        seen = velocity if self.strength == 1 else self._as_fitted(velocity)
        known = features(seen, sample, state, base)
        return result, known, Memory(base, seen, (guided, *state.guided)[:2])

    def _as_fitted(self, velocity: Tensor) -> Tensor:
        """The branches of which the fit's guidance makes the same guided velocity as this one's makes of `velocity`."""
        first, second = velocity
        return torch.stack([torch.lerp(second, first, self.strength), second])


def features(velocity: Tensor, sample: Tensor, before: Memory, base: Any) -> list[Tensor]:
    """The latents; where the solver has corrected them, so too; velocities of the branches, now and at the computed
    step before; the guided one before that.
    """
    corrected = [base.sample] if isinstance(base, SolverState) and base.sample is not None else []
    earlier = [] if before.branches is None else list(before.branches.unbind())
    return [sample, *corrected, *velocity.unbind(), *earlier, *before.guided[1:]]
