"""FlowCache's rule (arXiv 2602.10825): skip steps while the estimated change of the output is small. Pure.

Decisions follow from values that are the same on every rank.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reuse:
    """Skip steps while the estimated change, summed since the last computed step, is below `threshold`.

    coefficients: polynomial, highest power first, from the change of the signal to that of the output.
    warmup_steps: this many steps at a chunk's start are always computed.
    signal: what the polynomial was fitted on: what modulates the "blocks", or the "time" embedding before it.
    """

    threshold: float
    warmup_steps: int
    coefficients: tuple[float, ...]
    signal: Literal["blocks", "time"] = "blocks"

    def estimate(self, distance: float) -> float:
        value = 0.0
        for coefficient in self.coefficients:
            value = value * distance + coefficient
        return value


@dataclass(frozen=True)
class ReuseState:
    """What a chunk's guidance branch carries from one step to the next."""

    signal: Tensor | None = None  # of the last step, computed or not
    accumulated: float = 0.0


@dataclass(frozen=True)
class Decision:
    """Whether to compute, and what it was based on (None where no choice was open).

    slot: whose residual it reuses or replaces; None: that of its own guidance branch. branches: by branch, where these
    differ.
    """

    compute: bool
    distance: float | None = None  # relative L1 change of the signal
    estimate: float | None = None
    accumulated: float | None = None  # before it is reset
    slot: int | None = None
    branches: tuple["Decision", ...] = ()

    def of(self, branch: int) -> "Decision":
        return self.branches[branch] if self.branches else self


ALWAYS = Decision(compute=True)


def decide(
    reuse: Reuse | None,
    state: ReuseState,
    signal: Tensor,
    step: int,
    steps: int,
    total: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Decision, ReuseState]:
    """For the 0-based `step` of `steps`. The estimate is not clamped: negative ones lower the sum, as published.

    total: where each rank has a part of the signal, the sum of float64 values over all of them.
    """
    if reuse is None:
        return ALWAYS, state
    if step < reuse.warmup_steps or step == steps - 1 or state.signal is None:
        return ALWAYS, ReuseState(signal)
    distance = relative_change(signal, state.signal, total)
    estimate = reuse.estimate(distance)
    accumulated = state.accumulated + estimate
    compute = accumulated >= reuse.threshold
    return Decision(compute, distance, estimate, accumulated), ReuseState(signal, 0.0 if compute else accumulated)


def relative_change(signal: Tensor, before: Tensor, total: Callable[[Tensor], Tensor] | None = None) -> float:
    """mean |signal - before| / mean |before|, summed in float64, so that the number of ranks makes no difference."""
    signal, before = torch.broadcast_tensors(signal, before)  # of chunks that share a timestep there is but one
    sums = torch.stack([values.abs().sum(dtype=torch.float64) for values in (signal - before, before)])
    change, size = (total(sums) if total else sums).tolist()
    return change / size if size else math.inf
