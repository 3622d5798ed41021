"""What is spared compared to running the whole window at every step: a policy as plain data."""

from dataclasses import dataclass, replace
from typing import Literal

from flowcache.cache.fixed_steps import FixedSteps
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
      or "after" the row before, with the queries of the last forward that was computed (as published for MAGI-1).
    kv_buffer: how keys and values lie in memory. steps: which are taken at all, in place of `reuse`; None: every one.
    off: the unaccelerated model, whose forwards `steps` takes a share of; None: this one with every step.
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
    steps: FixedSteps | None = None
    off: "Policy | None" = None

    def __post_init__(self) -> None:
        if self.attention == "full" and self.kv_update != "recompute":
            raise ValueError("full attention runs the whole window anew at every row: no K/V can be kept")
        if self.attention == "full" and self.reuse and not self.whole:
            raise ValueError("full attention forwards all chunks together: they reuse together or not at all")
        if self.whole and self.kv_update != "recompute":
            raise ValueError("a rule for all chunks together needs them forwarded together at every row")
        if self.steps and (self.reuse or self.kv_update == "recompute"):
            raise ValueError("a fixed schedule reuses nothing, and needs K/V that are kept")
        if self.clean is not None and (self.kv_update == "recompute" or self.renoise):
            raise ValueError("a chunk that is forwarded again and again can't be cut down to a budget of clean tokens")

    def step_rule(self, steps: int, rows: int, total: Total, cycle: int = 0, branches: int = 1) -> StepRule:
        """See `Rule.of_window`, and for `whole` ones `Rule.of_forwards`."""
        if self.reuse is None:
            return ComputeAll()
        if self.whole:
            return self.reuse.of_forwards(cycle or rows, branches)
        return self.reuse.of_window(steps, rows, total)

    def step_cache(self) -> StepCache:
        """A fresh one for a chunk."""
        return self.cache.of_chunk() if self.reuse else StepCache()

    @property
    def exact(self) -> "Policy":
        """The same with every step computed."""
        return replace(self, reuse=None, steps=None, off=None)

    @property
    def asks_late(self) -> bool:
        """Whether tokens are chosen by earlier queries, so that those of a forward are kept until the next one."""
        return self.cut == "after" and isinstance(self.compression, Compression)

    @property
    def whole(self) -> bool:
        """A row computes all chunks, started or not, or reuses what all of them had."""
        return self.reuse is not None and self.reuse.whole

    def select(self, frame: int, chunk: int) -> Select:
        """How clean tokens are chosen (`models.base.Select`), where a frame and a chunk have so many tokens."""
        if isinstance(self.compression, Compression):
            return self.compression.grouped(frame, chunk).select
        return self.compression.select if self.compression else latest
