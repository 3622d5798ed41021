"""TeaCache's decision for all chunks under way at once, where the signal is that of their tokens (MAGI-1).

Written from FlowCache's comparison (mikeallen39/FlowCache, 1fdfa57, FlowCache4MAGI-1/inference/pipeline/teacache.py):
one sum of changes for all; a chunk that begins is computed alone and leaves that sum as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowcache.cache.reuse import Reuse, relative_change
from flowcache.cache.step_rule import Decision, Signal, StepRule, Total


@dataclass(frozen=True)
class TokensTogether(Reuse):
    """One decision a row, from the change of all tokens; the first `warmup_steps` rows are computed."""

    def of_window(self, steps: int, rows: int, total: Total) -> StepRule:
        return _Together(self, total)


@dataclass
class _Together:
    reuse: Reuse
    total: Total
    seen: dict[int, Tensor] = field(default_factory=dict)  # by chunk, of the row before
    accumulated: float = 0.0

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        now = {chunk: signal(chunk) for chunk in steps}
        both = [chunk for chunk in now if chunk in self.seen]
        compute = Decision(True)
        if both and row >= self.reuse.warmup_steps:
            current, before = (torch.cat([of[chunk].flatten() for chunk in both]) for of in (now, self.seen))
            distance = relative_change(current, before, self.total)
            estimate = self.reuse.estimate(distance)
            self.accumulated += estimate
            compute = Decision(self.accumulated >= self.reuse.threshold, distance, estimate, self.accumulated)
        if compute.compute:
            self.accumulated = 0.0
        self.seen = now
        return {chunk: compute if step else Decision(True) for chunk, step in steps.items()}

    def forget(self, chunk: int) -> None:
        self.seen.pop(chunk, None)
