"""What is spared compared to running the whole window at every step: a policy as plain data."""

from dataclasses import dataclass
from typing import Literal

from flowcache.cache.kv_select import Compression, Sink, latest
from flowcache.cache.reuse import Reuse
from flowcache.models.base import Select


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
    one for each chunk. With "recompute" it is SkyReels-V2's own TeaCache, see `whole`.
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

    def __post_init__(self) -> None:
        if self.attention == "full" and self.kv_update != "recompute":
            raise ValueError("full attention runs the whole window anew at every row: no K/V can be kept")
        if self.attention == "full" and self.reuse and not self.joint:
            raise ValueError("full attention forwards all chunks together: they reuse together (joint) or not at all")
        if self.clean is not None and (self.kv_update == "recompute" or self.renoise):
            raise ValueError("a chunk that is forwarded again and again can't be cut down to a budget of clean tokens")

    @property
    def whole(self) -> bool:
        """As officially with TeaCache: a row computes all chunks, started or not, or reuses what all of them had."""
        return self.joint and self.kv_update == "recompute"

    def select(self, frame: int, chunk: int) -> Select:
        """How clean tokens are chosen (`models.base.Select`), where a frame and a chunk have so many tokens."""
        if isinstance(self.compression, Compression):
            return self.compression.grouped(frame, chunk).select
        return self.compression.select if self.compression else latest
