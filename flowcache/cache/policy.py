"""What is spared compared to running the whole window at every step: a policy as plain data."""

from dataclasses import dataclass
from typing import Literal

from flowcache.cache.kv_buffer import MakeBuffer, PlainBuffer
from flowcache.cache.kv_select import Compression, Sink, latest
from flowcache.cache.step_cache import CacheOf, RepeatResidual, StepCache
from flowcache.cache.step_rule import ComputeAll, Rule, StepRule, Total
from flowcache.models.base import Select


@dataclass(frozen=True)
class Policy:
    """What is spared compared to running the whole window at every step.

    reuse: when a step is reused; None: never. cache: what then takes its place.
    attention: "causal" by chunks, or "full": all chunks of the window are forwarded together at every row, those
      that have not started too, and attend to one another (the official default, which spares nothing).
    kv_update: how the chunks before an updating one are seen.
      "recompute": forwarded anew at every row, finished ones at timestep 0 (the unaccelerated model);
      "stale": by the K/V of their last noisy step (as published);
      "refresh": forwarded once more at timestep 0 when they are finished.
    renoise: the prefix is forwarded with fresh noise at every row, not only at the first; "recompute" implies it.
    clean: finished chunks are seen with so many chunks' worth of tokens; None: with all.
    compression: how these tokens are chosen; None: the latest.
    near_clean_guidance: what distilled MAGI-1 takes from a copy of its cleanest chunk that sees only itself.
    cut: where clean tokens are cut down to the budget: "before" a chunk after them is forwarded, with its queries;
      or "after" the row before, with the queries of its last forward (as published for MAGI-1).
    kv_buffer: how keys and values lie in memory.
    """

    name: str
    reuse: Rule | None = None
    kv_update: Literal["recompute", "stale", "refresh"] = "recompute"
    renoise: bool = False
    clean: int | None = None
    compression: Compression | Sink | None = None
    attention: Literal["causal", "full"] = "causal"
    cache: CacheOf = CacheOf(RepeatResidual)
    near_clean_guidance: bool = True
    cut: Literal["before", "after"] = "before"
    kv_buffer: MakeBuffer = PlainBuffer

    def __post_init__(self) -> None:
        if self.attention == "full" and (self.reuse or self.kv_update != "recompute"):
            raise ValueError("full attention runs the whole window anew at every row: nothing to keep or to reuse")
        if self.clean is not None and (self.kv_update == "recompute" or self.renoise):
            raise ValueError("a chunk that is forwarded again and again can't be cut down to a budget of clean tokens")

    def step_rule(self, steps: int, rows: int, total: Total) -> StepRule:
        """See `Rule.of_window`."""
        return self.reuse.of_window(steps, rows, total) if self.reuse else ComputeAll()

    def step_cache(self) -> StepCache:
        """A fresh one for a chunk."""
        return self.cache.of_chunk() if self.reuse else StepCache()

    def select(self, frame: int, chunk: int) -> Select:
        """How clean tokens are chosen (`models.base.Select`), where a frame and a chunk have so many tokens."""
        if isinstance(self.compression, Compression):
            return self.compression.grouped(frame, chunk).select
        return self.compression.select if self.compression else latest
