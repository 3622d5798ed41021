"""SkyReels-V2's sampling plan: guidance by two branches, each with K/V of its own; UniPC over shifted sigmas."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from flowcache.cache.policy import Policy
from flowcache.records import ModelSpec, RenderRequest
from flowcache.sampling.guidance import branches, guide
from flowcache.sampling.plan import ChunkForward, SamplingPlan, SamplingStep
from flowcache.sampling.schedule import Row, schedule
from flowcache.sampling.solver import UniPC, sigmas, timesteps


@dataclass(frozen=True)
class SamplerSettings:
    """How to denoise one window. chunk: in latent frames; condition_noise: timestep 0..1000 of a prefix.

    window: latent frames of a whole window, of which this one may be a part; 0: unknown.
    """

    steps: int
    shift: float
    guidance: float
    ar_step: int
    chunk: int
    fps: int
    condition_noise: float = 20.0
    window: int = 0

    @classmethod
    def of(cls, request: RenderRequest, spec: ModelSpec) -> "SamplerSettings":
        """What the request says, and the model where it says nothing."""
        return cls(
            steps=request.steps,
            shift=spec.shift,
            guidance=request.guidance,
            ar_step=spec.ar_step if request.ar_step is None else request.ar_step,
            chunk=spec.chunk,
            fps=request.fps,
            condition_noise=spec.condition_noise,
            window=spec.window,
        )

    def plan(self, frames: int, policy: Policy, given: int = 0) -> SamplingPlan:
        """See `plan.Settings`."""
        levels = sigmas(self.steps, self.shift)
        rows = schedule(frames, self.chunk, timesteps(levels), self.ar_step, given)
        ready = given // self.chunk
        # As officially: of a fresh start as long as the model knows, or of what is new in a window that continues.
        chunks = frames // self.chunk - ready if ready else max(frames, self.window) // self.chunk
        return SamplingPlan(
            steps=self.steps,
            rows=tuple(self._sampling_step(rows, number, policy, ready) for number in range(len(rows))),
            solver=UniPC(levels, overwritten=True),
            guide=lambda step, velocities: guide(velocities, self.guidance),
            kv_branches=branches(self.guidance),
            budget=policy.clean,
            prefix_timestep=self.condition_noise,
            given_timestep=0.0,
            timesteps=tuple(tuple(self._timestep(row, c, ready) for c in range(len(row.index))) for row in rows),
            cycle=self.steps + (chunks - 1) * self.ar_step,
        )

    def _sampling_step(self, rows: Sequence[Row], number: int, policy: Policy, ready: int) -> SamplingStep:
        row = rows[number]
        # As published, a prefix counts as clean, and is seen at all, only after the first row.
        unseen = ready if number == 0 and policy.clean is not None else 0
        forwards = []
        for chunk in _visited(rows, number, policy, ready, self.steps):
            step = row.index[chunk] - 1 if row.update[chunk] else -1
            timestep = self._timestep(row, chunk, ready)
            make = partial(ChunkForward, chunk, step=step, timestep=timestep, first=min(unseen, chunk))
            texts = ("caption", "negative")[: branches(self.guidance)]
            forwards += [make(branch=branch, text=text, kv_branch=branch) for branch, text in enumerate(texts)]
        # K/V are final after the last step (even in this row), or once they are refreshed.
        last = self.steps + (policy.kv_update == "refresh")
        return SamplingStep(tuple(forwards), sum(index >= last for index in row.index) if number else 0)

    def _timestep(self, row: Row, chunk: int, ready: int) -> float:
        """Of a chunk as the model sees it."""
        noised = chunk < ready and self.condition_noise > 0
        return self.condition_noise if noised else float(row.timesteps[chunk])


def _visited(rows: Sequence[Row], number: int, policy: Policy, ready: int, steps: int) -> list[int]:
    """Chunks forwarded in this row, in order."""
    row = rows[number]
    updated = [chunk for chunk, update in enumerate(row.update) if update]
    if policy.attention == "full" or policy.whole:
        return list(range(len(row.update)))
    if policy.kv_update == "recompute":
        return list(range(updated[-1] + 1))
    prefix = range(ready) if number == 0 or policy.renoise else range(0)
    refreshed = []
    if policy.kv_update == "refresh" and number:
        refreshed = [chunk for chunk, index in enumerate(rows[number - 1].index) if index == steps]
    return [*prefix, *refreshed, *updated]
