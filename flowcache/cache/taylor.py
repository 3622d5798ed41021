"""TaylorSeer's rule (arXiv 2503.06923): compute every n-th step, forecast the others by a Taylor series.

Written from the paper and from `cal_type.py` and `taylorseer_utils` of TaylorSeer-Wan2.1 (Shenyi-Z/TaylorSeer,
288776d). There each layer's attention and feed-forward outputs are forecast by themselves; here their sum is, what all
layers together add to the tokens: the same but for the gates on them, which are those of the last computed steps.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from flowcache.cache.step_cache import Solve, StepCache
from flowcache.cache.step_rule import Decision, Rule, Signal, StepRule, Total

INTERVAL, ORDER = 5, 1  # the official ones for Wan2.1


@dataclass(frozen=True)
class EveryNth(Rule):
    """A chunk computes its steps 0, interval, 2 * interval and so on."""

    interval: int = INTERVAL

    def of_window(self, steps: int, rows: int, total: Total) -> StepRule:
        return _Nth(self.interval)

    def at_most(self) -> Self:
        """It goes by the numbers of steps alone."""
        return self


@dataclass(frozen=True)
class _Nth:
    interval: int

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        return {chunk: Decision(step % self.interval == 0) for chunk, step in steps.items()}

    def forget(self, chunk: int) -> None:
        """It follows from the step alone."""


class ForecastResidual(StepCache):
    """What all layers together added to the tokens, by branch, as a Taylor series of `order` around the last computed
    step, its derivatives from differences of the computed ones."""

    def __init__(self, order: int = ORDER) -> None:
        self.order, self.step = order, 0
        self.known: dict[int, tuple[int, list[Tensor]]] = {}  # by branch: the computed step, value and derivatives

    def keep(self, branch: int, tokens: Tensor, out: Tensor) -> None:
        step, before = self.known.get(branch, (self.step, []))
        factors = [out - tokens]
        for older in before[: self.order]:
            factors.append((factors[-1] - older) / (self.step - step))
        self.known[branch] = self.step, factors

    def stand_in(self, branch: int, tokens: Tensor) -> Tensor:
        step, factors = self.known[branch]
        away = self.step - step
        return sum((away**i / math.factorial(i) * each for i, each in enumerate(factors)), tokens)

    def advance(self, latents: Tensor, velocity: Tensor | None, solve: Solve) -> Tensor:
        self.step += 1
        return super().advance(latents, velocity, solve)
