"""MagCache's rule (arXiv 2506.09045): skip steps while the residual's magnitude has hardly changed.

Written from the paper and from `magcache_generate.py` of MagCache4Wan2.1 (Zehong-Ma/MagCache, df81cb1). How much the
residual grows or shrinks from step to step is measured once on a model, with one prompt (`Magnitudes`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Self

from torch import Tensor

from flowcache.cache.step_cache import RepeatResidual, StepCache
from flowcache.cache.step_rule import ComputeAll, Decision, Rule, Signal, StepRule, Total

THRESHOLD, MOST, RETAINED = 0.12, 4, 0.2  # the official command for Wan2.1 1.3B


@dataclass(frozen=True)
class MagnitudeReuse(Rule):
    """ratios: by branch and step, the residual's magnitude over that of the step before (that of step 0 is not read).

    threshold: of the summed errors of skipped steps; most: steps in a row that may be skipped; retained: share of the
    steps at a chunk's start that are always computed.
    """

    ratios: tuple[tuple[float, ...], ...]
    threshold: float = THRESHOLD
    most: int = MOST
    retained: float = RETAINED

    def of_window(self, steps: int, rows: int, total: Total) -> StepRule:
        return _PerBranch(tuple(_computed(self, branch, steps) for branch in range(len(self.ratios))))

    def at_most(self) -> Self:
        """It goes by the numbers of steps alone."""
        return self


def _computed(rule: MagnitudeReuse, branch: int, steps: int) -> tuple[bool, ...]:
    """Of each step. Forwards are counted, branches in turn, as officially."""
    found, branches = list[bool](), len(rule.ratios)
    ratio, error, skipped = 1.0, 0.0, 0
    for step in range(steps):
        compute = step == 0 or step * branches + branch < int(steps * branches * rule.retained)
        if not compute:
            ratio, skipped = ratio * rule.ratios[branch][step], skipped + 1
            error += abs(1 - ratio)
            compute = error >= rule.threshold or skipped > rule.most
            if compute:
                ratio, error, skipped = 1.0, 0.0, 0
        found.append(compute)
    return tuple(found)


@dataclass(frozen=True)
class _PerBranch:
    computed: tuple[tuple[bool, ...], ...]  # by branch and step

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        """Whether a chunk's step is computed, each branch says for itself."""
        own = {step: tuple(Decision(branch[step]) for branch in self.computed) for step in {*steps.values()}}
        return {chunk: Decision(True, branches=own[step]) for chunk, step in steps.items()}

    def forget(self, chunk: int) -> None:
        """It follows from the step alone."""


class KeptResidual(RepeatResidual):
    """`RepeatResidual`, also for families whose own policies repeat something else."""


@dataclass
class Magnitudes:
    """Measures the ratios that `MagnitudeReuse` goes by. ratios: by branch and step, of each chunk."""

    ratios: dict[int, dict[int, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def table(self, steps: int) -> tuple[tuple[float, ...], ...]:
        """Means over the chunks; 1 at steps where a branch did not run."""
        return tuple(
            tuple(mean(self.ratios[branch].get(step) or [1.0]) for step in range(steps))
            for branch in sorted(self.ratios)
        )


class MeasureMagnitudes(StepCache):
    """Of a chunk whose every step is computed; `into` is told each ratio."""

    def __init__(self, into: Magnitudes) -> None:
        self.into = into
        self.last: dict[int, tuple[int, Tensor]] = {}  # by branch: step, [S] magnitudes of the tokens' residuals

    def keep(self, branch: int, tokens: Tensor, out: Tensor) -> None:
        size = (out - tokens).float().norm(dim=-1)
        step, before = self.last.get(branch, (-1, None))
        of_branch = self.into.ratios[branch]  # also where it runs but once
        if before is not None:
            of_branch[step + 1].append(float((size / before).mean()))
        self.last[branch] = step + 1, size


class Measured(Rule):
    """Every step is computed, and step caches see it."""

    def of_window(self, steps: int, rows: int, total: Total) -> StepRule:
        return ComputeAll()

    def at_most(self) -> Self:
        return self


def table_of(raw: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """As it was read from a file."""
    return tuple(tuple(map(float, branch)) for branch in raw)
