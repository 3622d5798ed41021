"""SkyReels-V2's sampling plan: guidance by two branches, each with K/V of its own; UniPC over shifted sigmas."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from flowcache.cache.fixed_steps import Conditions
from flowcache.cache.policy import Policy
from flowcache.families.skyreels.requests import rightly
from flowcache.records import ModelSpec, RenderRequest
from flowcache.sampling.guidance import branches, guide
from flowcache.sampling.plan import ChunkForward, SamplingPlan, SamplingStep
from flowcache.sampling.schedule import Row, schedule
from flowcache.sampling.solver import UniPC, sigmas, timesteps


@dataclass(frozen=True)
class SamplerSettings:
    """How to denoise one window. chunk: in latent frames; condition_noise: timestep 0..1000 of a prefix.

    window: latent frames of a whole window of the video, of which this one may be a part; 0: unknown. longest: those of
    the model's own. solver: UniPC as the official program runs it, or without its in-place update (`UniPC`).
    """

    steps: int
    shift: float
    guidance: float
    ar_step: int
    chunk: int
    fps: int
    condition_noise: float = 20.0
    window: int = 0
    longest: int = 0
    solver: Literal["official", "corrected"] = "official"

    @classmethod
    def of(cls, request: RenderRequest, spec: ModelSpec) -> "SamplerSettings":
        """What the request says, and the model where it says nothing."""
        corrected, lag = rightly(request.solver, request.policy), spec.ar_step
        if corrected:  # with fewer steps chunks run as many noise levels behind one another, not as many steps
            lag = in_proportion(lag, request.steps, spec.steps)
        return cls(
            steps=request.steps,
            shift=spec.shift,
            guidance=request.guidance,
            ar_step=lag if request.ar_step is None else request.ar_step,
            chunk=spec.chunk,
            fps=request.nominal_fps,
            condition_noise=spec.condition_noise,
            window=spec.fresh(request.shots),
            longest=spec.window,
            solver="corrected" if corrected else "official",
        )

    def fewer(self, steps: int, lag: int | None = None) -> "SamplerSettings":
        """See `budget.Fewer`."""
        return replace(
            self, steps=steps, ar_step=in_proportion(self.ar_step, steps, self.steps) if lag is None else lag
        )

    def plan(self, frames: int, policy: Policy, given: int = 0) -> SamplingPlan:
        """See `plan.Settings`."""
        levels = sigmas(self.steps, self.shift)
        rows = schedule(frames, self.chunk, timesteps(levels), self.ar_step, given)
        ready = given // self.chunk
        # As officially: of a fresh start as long as the model knows, or of what is new in a window that continues.
        chunks = frames // self.chunk - ready if ready else max(frames, self.longest) // self.chunk
        return SamplingPlan(
            steps=self.steps,
            rows=tuple(self._sampling_step(rows, number, policy, ready) for number in range(len(rows))),
            solver=UniPC(levels, levels if self.solver == "official" else None),
            told=f"UniPC, {self.solver}",
            conditions=self._conditions,
            linear=branches(self.guidance) == 2,
            guide=lambda step, velocities: guide(velocities, self.guidance),
            kv_branches=1 if in_turn(policy) else branches(self.guidance),
            budget=policy.clean,
            prefix_timestep=self.condition_noise,
            given_timestep=0.0,
            timesteps=tuple(tuple(self._timestep(row, c, ready) for c in range(len(row.index))) for row in rows),
            cycle=self.steps + (chunks - 1) * self.ar_step,
        )

    @property
    def _conditions(self) -> Conditions | None:
        """Of the corrected solver, which budgets are calibrated with."""
        if self.solver == "official":
            return None
        return Conditions(self.steps, self.shift, self.guidance, self.ar_step, self.chunk)

    def _sampling_step(self, rows: Sequence[Row], number: int, policy: Policy, ready: int) -> SamplingStep:
        row = rows[number]
        # As published, a prefix counts as clean, and is seen at all, only after the first row.
        unseen = ready if number == 0 and policy.clean is not None else 0
        forwards: list[ChunkForward] = []
        for chunk in _visited(rows, number, policy, ready, self.steps):
            step = row.index[chunk] - 1 if row.update[chunk] else -1
            timestep = self._timestep(row, chunk, ready)
            make = partial(ChunkForward, chunk, step=step, timestep=timestep, first=min(unseen, chunk))
            texts = ("caption", "negative")[: branches(self.guidance)]
            own = 0 if in_turn(policy) else 1  # K/V for each branch
            forwards += [make(branch=branch, text=text, kv_branch=own * branch) for branch, text in enumerate(texts)]
        if in_turn(policy):
            forwards.sort(key=lambda forward: forward.branch)
        # K/V are final after the last step (even in this row), or once they are refreshed.
        last = self.steps + (policy.kv_update == "refresh")
        return SamplingStep(tuple(forwards), sum(index >= last for index in row.index) if number else 0)

    def _timestep(self, row: Row, chunk: int, ready: int) -> float:
        """Of a chunk as the model sees it."""
        noised = chunk < ready and self.condition_noise > 0
        return self.condition_noise if noised else float(row.timesteps[chunk])


def in_proportion(lag: int, steps: int, every: int) -> int:
    """The lag of so many steps that chunks are as many noise levels behind one another as with every one."""
    return lag and max(round(lag * steps / every), 1)


def in_turn(policy: Policy) -> bool:
    """Whether all chunks are forwarded for one guidance branch, then for the next with the same memory for K/V.

    It halves that memory where a row leaves nothing behind that the next one sees.
    """
    return policy.kv_update == "recompute" and policy.attention == "causal" and policy.reuse is None


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
