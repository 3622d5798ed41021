"""FlowCache's rule (arXiv 2602.10825): skip steps while the estimated change of the output is small; and TeaCache's.

Decisions follow from values that are the same on every rank.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from torch import Tensor

from flowcache.cache.step_rule import ALWAYS, Decision, Rule, Signal, StepRule, Total


@dataclass(frozen=True)
class Reuse(Rule):
    """Skip steps while the estimated change, summed since the last computed step, is below `threshold`.

    coefficients: polynomial, highest power first, from the change of the signal to that of the output.
    warmup_steps: this many steps at a chunk's start are always computed.
    last_step: a chunk's own last step is always computed, else only that of the whole window.
    """

    threshold: float
    warmup_steps: int
    coefficients: tuple[float, ...]
    last_step: bool = True

    def of_window(self, steps: int, rows: int, total: Total) -> StepRule:
        return PerChunk(self, steps, rows - 1, total)

    def at_least(self) -> Self:
        return replace(self, threshold=math.inf, coefficients=(0.0,))

    def estimate(self, distance: float) -> float:
        value = 0.0
        for coefficient in self.coefficients:
            value = value * distance + coefficient
        return value


@dataclass(frozen=True)
class JointReuse(Reuse):
    """One decision a row for the whole window, from the timesteps of all its frames (TeaCache)."""

    joint = True

    def of_window(self, steps: int, rows: int, total: Total) -> StepRule:
        return Jointly(self, rows)


@dataclass(frozen=True)
class CountedReuse(Reuse):
    """SkyReels-V2's own TeaCache: see `Counted`.

    signal: what the polynomial was fitted on: what modulates the "blocks", or the "time" embedding before it.
    """

    joint, whole = True, True
    signal: Literal["blocks", "time"] = "blocks"

    def of_forwards(self, cycle: int, branches: int) -> StepRule:
        return Counted(self, cycle, branches)


@dataclass(frozen=True)
class ReuseState:
    """What a chunk's guidance branch carries from one step to the next."""

    signal: Tensor | None = None  # of the last step, computed or not
    accumulated: float = 0.0


def decide(
    reuse: Reuse | None,
    state: ReuseState,
    signal: Tensor,
    step: int,
    steps: int,
    total: Total | None = None,
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


@dataclass
class PerChunk:
    """Each chunk for itself, by the change of its own signal. steps: of every chunk. last_row: of the window."""

    reuse: Reuse
    steps: int
    last_row: int
    total: Total
    states: dict[int, ReuseState] = field(default_factory=lambda: defaultdict(ReuseState))

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        ends = self.reuse.last_step or row == self.last_row
        decisions = {}
        for chunk, step in steps.items():
            count = self.steps if ends else self.steps + 1  # no step is the last one then
            state = self.states[chunk]
            decisions[chunk], self.states[chunk] = decide(self.reuse, state, signal(chunk), step, count, self.total)
        return decisions

    def forget(self, chunk: int) -> None:
        self.states.pop(chunk, None)  # MAGI-1's signal is as large as the chunk's tokens


@dataclass
class Jointly:
    """One decision a row for the whole window; rows are its steps."""

    reuse: Reuse
    rows: int
    state: ReuseState = ReuseState()

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        seen = signal(None)
        decision, self.state = decide(self.reuse, self.state, seen, row, self.rows)
        if 0 in steps.values():  # what begins has nothing to reuse
            decision, self.state = ALWAYS, ReuseState(seen)
        return dict.fromkeys(steps, decision)

    def forget(self, chunk: int) -> None:
        """The window goes on."""


@dataclass
class Counted:
    """SkyReels-V2's own TeaCache (skyreels_v2_infer/modules/transformer.py), which counts forwards, not rows.

    It counts to `cycle`, as many as a whole window has rows, and begins anew, with warm-up steps each time: with two
    guidance `branches` in a window's middle. Forwards with an even number have one state and one residual, those with
    an odd one the other: with an odd cycle the branches change places there, and a single branch has both in turn.
    """

    reuse: CountedReuse
    cycle: int
    branches: int
    count: int = 0
    states: list[ReuseState] = field(default_factory=lambda: [ReuseState(), ReuseState()])

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        seen = signal(None)
        return dict.fromkeys(steps, Decision(True, branches=tuple(self._next(seen) for _ in range(self.branches))))

    def _next(self, seen: Tensor) -> Decision:
        slot = self.count % 2
        decision, self.states[slot] = decide(self.reuse, self.states[slot], seen, self.count // 2, steps=0)
        self.count = (self.count + 1) % self.cycle
        return replace(decision, slot=slot)

    def forget(self, chunk: int) -> None:
        """The window goes on."""
