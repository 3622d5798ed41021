"""The toy's sampling plan: every chunk takes all its steps before the next one starts."""

from dataclasses import dataclass

from flowcache.cache.policy import Policy
from flowcache.sampling.plan import ChunkForward, SamplingPlan, SamplingStep
from flowcache.sampling.schedule import whole_chunks
from flowcache.sampling.solver import Euler


@dataclass(frozen=True)
class ToySettings:
    steps: int
    chunk: int
    fps: int

    def plan(self, frames: int, policy: Policy, given: int = 0) -> SamplingPlan:
        ready, times = given // self.chunk, tuple(step / self.steps for step in range(self.steps + 1))
        prefix = [ChunkForward(chunk, 0, -1, 1000.0) for chunk in range(ready)]
        rows = []
        for chunk in range(ready, whole_chunks(frames, self.chunk)):
            for step in range(self.steps):
                forward = ChunkForward(chunk, 0, step, 1000 * times[step])
                rows.append(SamplingStep((*prefix, forward)))
                prefix = []
        return SamplingPlan(self.steps, tuple(rows), Euler(times), lambda step, found: found[0], 1, policy.clean)
