"""The quality guard of policy flowcache: a window that strays further than its calibration saw is rendered again.

It ends with the first chunk whose residuals are too large, on every rank alike, since all have the same residuals.
"""

from dataclasses import replace
from typing import Any

from flowcache.cache.fixed_steps import Calibration
from flowcache.cache.policy import Policy
from flowcache.errors import FlowcacheError
from flowcache.sampling.records import FinishedChunk
from flowcache.worker.task import EVERY, Raised


class Strayed(FlowcacheError):
    """A render is given up. chunk: of the window; ratio: of its residuals to what calibration saw; next: what then."""

    def __init__(self, chunk: int, ratio: float, next: Raised):
        self.chunk, self.ratio, self.next = chunk, ratio, next
        super().__init__(f"chunk {chunk} of the window strays {ratio:.3g} times as far as calibration saw")

    def __reduce__(self) -> tuple[type["Strayed"], tuple[int, float, Raised]]:
        return type(self), (self.chunk, self.ratio, self.next)


def within(policy: Policy, raised: Raised | None) -> Policy:
    """The policy in place of which others were given up."""
    if raised is None or policy.steps is None:
        return policy
    if raised.budget >= EVERY:
        return policy.exact
    return replace(policy, steps=replace(policy.steps, budget=raised.budget))


class Guard:
    """Of one render. asked: the row's policy; policy: that it is rendered by."""

    def __init__(self, asked: Policy, policy: Policy, raised: Raised | None):
        self.asked, self.policy, self.raised = asked, policy, raised
        self.calibration: Calibration | None = None
        self.forwards = raised.forwards if raised else 0

    @property
    def repeats(self) -> int:
        return self.raised.repeats if self.raised else 0

    def heed(self, done: FinishedChunk) -> None:
        """Strayed where the chunk is not good enough."""
        self.calibration = done.calibration
        self.forwards += done.forwards
        steps, ratio = self.policy.steps, done.ratio
        if steps and steps.floor is not None and done.calibration and ratio is not None and ratio > steps.floor:
            budget = next(iter(steps.larger(done.calibration)), EVERY)
            raise Strayed(done.index, ratio, Raised(budget, self.repeats + 1, self.forwards))

    @property
    def told(self) -> dict[str, Any]:
        """Fields of the segment's marker: of a row with a budget, which it had in the end and what came before."""
        if self.asked.steps is None:
            return {}
        return {
            "budget": self.policy.steps.budget if self.policy.steps else EVERY,
            "calibrated_guidance": self.calibration and self.calibration.conditions.guidance,
            "calibrated_target": self.calibration and self.calibration.target,
            "predicted_error": self.calibration and self.calibration.predicted,
            "repeats": self.repeats,
            "dropped_forwards": self.raised.forwards if self.raised else 0,
        }
