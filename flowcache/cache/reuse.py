"""When to compute a step and when to reuse the last one: FlowCache's policy (arXiv 2602.10825), pure.

Decisions follow from values that are the same on every rank.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flowcache.cache.kv_select import Compression, Sink, latest
from flowcache.models.base import Select


@dataclass(frozen=True)
class Reuse:
    """Skip steps while the estimated change, summed since the last computed step, is below `threshold`.

    coefficients: polynomial, highest power first, from the change of the signal to that of the output.
    ret_steps: this many steps at a chunk's start are always computed.
    """

    threshold: float
    warmup_steps: int
    coefficients: tuple[float, ...]

    def estimate(self, distance: float) -> float:
        value = 0.0
        for coefficient in self.coefficients:
            value = value * distance + coefficient
        return value


@dataclass(frozen=True)
class Policy:
    """What is spared compared to running the whole window at every step.

    attention: "causal" by chunks, or "full": all chunks of the window are forwarded together at every row, those
      that have not started too, and attend to one another (the official default, which spares nothing).
    kv_update: how the chunks before an updating one are seen.
      "recompute": forwarded anew at every row, finished ones at timestep 0 (the unaccelerated model);
      "stale": by the K/V of their last noisy step (as published);
      "refresh": forwarded once more at timestep 0 when they are finished.
    renoise: the prefix is forwarded with fresh noise at every row, not only at the first; "recompute" implies it.
    clean: finished chunks are seen with so many chunks' worth of tokens; None: with all.
    compression: how these tokens are chosen; None: the latest.
    joint: one decision a row for the whole window, from the timesteps of all its frames (TeaCache), instead of
    one for each chunk.
    repeats: what a reused step takes: the "residual" of all layers (SkyReels-V2), each branch its own; the last
      computed "velocity", which the solver integrates over the step's own length; or the latents' last "increment",
      whatever the step's length (as published for MAGI-1).
    last_step: a chunk's own last step is always computed, else only that of the whole plan.
    near_clean_guidance: what distilled MAGI-1 takes from a copy of its cleanest chunk that sees only itself.
    cut: where clean tokens are cut down to the budget: "before" a chunk after them is forwarded, with its queries;
      or "after" the row before, with the queries of its last forward (as published for MAGI-1).
    """

    name: str
    reuse: Reuse | None = None
    kv_update: Literal["recompute", "stale", "refresh"] = "recompute"
    renoise: bool = False
    clean: int | None = None
    compression: Compression | Sink | None = None
    joint: bool = False
    attention: Literal["causal", "full"] = "causal"
    repeats: Literal["residual", "velocity", "increment"] = "residual"
    last_step: bool = True
    near_clean_guidance: bool = True
    cut: Literal["before", "after"] = "before"

    def __post_init__(self):
        if self.attention == "full" and (self.reuse or self.kv_update != "recompute"):
            raise ValueError("full attention runs the whole window anew at every row: nothing to keep or to reuse")
        if self.clean is not None and (self.kv_update == "recompute" or self.renoise):
            raise ValueError("a chunk that is forwarded again and again can't be cut down to a budget of clean tokens")

    def select(self, frame: int, chunk: int) -> Select:
        """How clean tokens are chosen (`models.base.Select`), where a frame and a chunk have so many tokens."""
        if isinstance(self.compression, Compression):
            return self.compression.grouped(frame, chunk).select
        return self.compression.select if self.compression else latest


@dataclass(frozen=True)
class ReuseState:
    """What a chunk's guidance branch carries from one step to the next."""

    signal: Tensor | None = None  # of the last step, computed or not
    accumulated: float = 0.0


@dataclass(frozen=True)
class Decision:
    """Whether to compute, and what it was based on (None where no choice was open)."""

    compute: bool
    distance: float | None = None  # relative L1 change of the signal
    estimate: float | None = None
    accumulated: float | None = None  # before it is reset


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
    sums = torch.stack([values.abs().sum(dtype=torch.float64) for values in (signal - before, before)])
    change, size = (total(sums) if total else sums).tolist()
    return change / size if size else math.inf
