"""MAGI-1's sampling plan (inference/pipeline/video_generate.py): chunks in flight behind one another, Euler steps.

Official forwards take all chunks in flight at once. They are causal, so here each chunk is forwarded on its own, in
order, against the K/V of those before it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from flowcache.cache.fixed_steps import Conditions
from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.step_cache import RepeatResidual
from flowcache.families.magi.pipeline import Pipeline
from flowcache.records import ModelSpec, RenderRequest
from flowcache.sampling.plan import ChunkForward, SamplingPlan, SamplingStep
from flowcache.sampling.schedule import Row, schedule
from flowcache.sampling.solver import Euler

SHORTCUTS = {"8,16,16": (0, 2, 3), "16,16,8": (0, 1, 2)}  # sixteenths of a quarter that 12 steps stand at
PREV_CHUNKS_SCALE = 0.7  # of distilled models, where nothing else is asked for
SHIFT = 3.0  # of all models
PREFIX_RANGE = 8  # chunks that those of a prefix see where no range is given
Curve = Literal["square", "piecewise", "identity"]


@dataclass(frozen=True)
class MagiSettings:
    """How to denoise one window. lag: rows between the starts of neighbouring chunks; chunk: in latent frames.

    guidance: the strongest of the text's scales, to which the others keep their ratios. prev_chunks_scale: what the
    cleanest chunk as it sees those before weighs against its copy that sees itself alone, of 1 in all (distilled).
    window: latent frames of a whole window of the video, of which this one may be a part; 0: unknown.
    """

    steps: int
    lag: int
    chunk: int
    fps: int
    guidance: float
    pipeline: Pipeline
    prev_chunks_scale: float = PREV_CHUNKS_SCALE
    window: int = 0

    @classmethod
    def of(cls, request: RenderRequest, spec: ModelSpec) -> "MagiSettings":
        """What the request says, and the model where it says nothing."""
        lag = request.steps // spec.pipeline.window if request.ar_step is None else request.ar_step
        scale = PREV_CHUNKS_SCALE if request.prev_chunks_scale is None else request.prev_chunks_scale
        own = request.guidance, spec.pipeline, scale, spec.fresh(request.shots)
        return cls(request.steps, lag, spec.chunk, request.nominal_fps, *own)

    def fewer(self, steps: int, lag: int | None = None) -> "MagiSettings":
        """See `budget.Fewer`; as many chunks in flight."""
        own = self.lag and max(self.lag * steps // self.steps, 1)
        return replace(self, steps=steps, lag=own if lag is None else lag)

    @property
    def times(self) -> tuple[float, ...]:
        """The steps' times and the one that the last leads to."""
        return time_grid(self.steps, self.pipeline.shortcut)

    def plan(self, frames: int, policy: Policy, given: int = 0) -> SamplingPlan:
        """See `plan.Settings`."""
        reuse, residual = policy.reuse, policy.cache.kind is RepeatResidual
        if policy.attention == "full" or (reuse and (reuse.joint or residual)):
            raise ValueError(f"MAGI-1 has no policy {policy.name!r} of this kind; accepted: off, paper, flowcache")
        rows = schedule(frames, self.chunk, range(self.steps), self.lag, given)
        steps = _SamplingSteps(self, rows, policy, given // self.chunk)
        made = tuple(steps.make(number) for number in range(len(rows)))
        budget = policy.clean if policy.clean is not None else _needed(made)
        guidance = self.guidance if self.pipeline.passes == 3 else self.prev_chunks_scale
        return SamplingPlan(
            self.steps, made, Euler(self.times), self.guide, 1, budget, told="Euler", weightless=self._weightless(),
            conditions=Conditions(self.steps, SHIFT, guidance, self.lag, self.chunk),
        )  # fmt: skip

    def _weightless(self) -> frozenset[tuple[int, int]]:
        """See `SamplingPlan`. Of the copy alone it is all steps or none: which chunk has one, no step says."""
        if self.pipeline.passes == 3:
            weights = {step: self.weights(step) for step in range(self.steps)}
            return frozenset((step, branch) for step, own in weights.items() for branch in range(3) if not own[branch])
        return frozenset((step, 1) for step in range(self.steps) if self.prev_chunks_scale == 1)

    def weights(self, step: int) -> tuple[float, float, float]:
        """Of the three passes: with text, without, and alone."""
        before, text = guidance_scales(self.pipeline, self.times[step])
        text *= self.guidance / max(self.pipeline.text_scales)
        return text, before - text, 1 - before

    def guide(self, step: int, velocities: list[Tensor]) -> Tensor:
        """Combine those of one pass, of one pass and the copy, or of those of three that have a weight."""
        if self.pipeline.passes == 3:
            weighed = [weight for weight in self.weights(step) if weight]
            first, *others = (w * v for w, v in zip(reversed(weighed), reversed(velocities), strict=True))
            return sum(others, first)
        if len(velocities) == 1:
            return velocities[0]
        return self.prev_chunks_scale * velocities[0] + (1 - self.prev_chunks_scale) * velocities[1]


class _SamplingSteps:
    """Makes the sampling steps of one plan from the rows of its schedule."""

    def __init__(self, settings: MagiSettings, rows: tuple[Row, ...], policy: Policy, ready: int):
        self.settings, self.rows, self.policy, self.ready = settings, rows, policy, ready
        self.steps, self.passes, self.times = settings.steps, settings.pipeline.passes, settings.times
        *self.timesteps, self.clean_timestep = model_times([*self.times[:-1], settings.pipeline.clean_time])

    def make(self, number: int) -> SamplingStep:
        active = self._active(number)
        forwards = [self._clean(chunk, 0, "prefix") for chunk in range(self.ready if number == 0 else 0)]
        for branch in range(2 if self.passes == 3 else 1):  # the second one's K/V replace the first one's
            forwards += [self._clean(chunk, branch, "refresh") for chunk in self._refreshed(number)]
            forwards += [self._step(chunk, step, branch) for chunk, step in active]
        if self.passes == 3:
            forwards += [self._step(chunk, step, 2) for chunk, step in active]
        elif self.policy.near_clean_guidance and self.times[active[0][1]] > self.settings.pipeline.near_clean:
            forwards.append(self._step(*active[0], 1))
        late = self.policy.asks_late and number > 0
        return SamplingStep(tuple(forwards), self._cuttable(number), late, self._distill(number))

    def _active(self, number: int) -> list[tuple[int, int]]:
        """(chunk, step) of all in flight, the cleanest first."""
        row = self.rows[number]
        return [(chunk, row.index[chunk] - 1) for chunk, update in enumerate(row.update) if update]

    def _refreshed(self, number: int) -> list[int]:
        """Chunks whose K/V are still those of their last noisy step."""
        if number == 0 or self.policy.kv_update == "stale":
            return []
        return [chunk for chunk, index in enumerate(self.rows[number - 1].index) if index == self.steps]

    def _step(self, chunk: int, step: int, branch: int) -> ChunkForward:
        alone = branch == 2 or (branch == 1 and self.passes == 1)
        text = "caption" if branch == 0 or self.passes == 1 else "dropped"
        kv_branch, first = (None, chunk) if alone else (0, self._first(chunk, step))
        return ChunkForward(chunk, branch, step, self.timesteps[step], text, kv_branch, first)

    def _clean(self, chunk: int, branch: int, kind: Literal["prefix", "refresh"]) -> ChunkForward:
        """A given or a finished chunk, for its K/V: those that the pass without text leaves are kept."""
        dropped = self.passes == 3 and (branch == 1 or kind == "prefix")
        text = "dropped" if dropped else "null"
        first = self._first(chunk, -1 if kind == "prefix" else self.steps)
        return ChunkForward(chunk, branch, -1, self.clean_timestep, text, 0, first)

    def _first(self, chunk: int, step: int) -> int:
        """The first chunk that is seen, see `first_seen`. While it is denoised a chunk sees all that a budget keeps."""
        if self.policy.clean is not None and 0 <= step < self.steps:
            return 0
        return first_seen(self.settings.pipeline, self.steps, chunk, step)

    def _starts(self, number: int) -> bool:
        """Whether a chunk takes its first step in this row."""
        return number < len(self.rows) and 1 in self.rows[number].index

    def _finished(self, number: int) -> int:
        """Chunks that finished before this row, or are given."""
        return sum(index > self.steps for index in self.rows[number].index)

    def _cuttable(self, number: int) -> int:
        """Room is made for chunks that start, and only for them."""
        start = next(n for n in range(number, -1, -1) if self._starts(n))
        again = self._rewritten(number) if start == number and self.passes == 3 else 0
        return self._finished(start) - again

    def _rewritten(self, number: int) -> int:
        """Chunks that are forwarded once more in this row, where their K/V must not be cut before: of what scores
        chose among them and others nobody knows any more what is to be replaced."""
        return len(self._refreshed(number)) if isinstance(self.policy.compression, Compression) else 0

    def _distill(self, number: int) -> float | None:
        if not self.settings.pipeline.distilled:
            return None
        if self.steps != 12:
            return self.steps / 2
        lag = min(self.settings.lag, self.steps)
        return 8 / intervals(self.steps, self.settings.pipeline.shortcut)[number % lag if lag else number]


def time_grid(
    steps: int, shortcut: str = "8,16,16", curve: Curve = "square", shift: float = SHIFT
) -> tuple[float, ...]:
    """The times that `steps` steps stand at and the last one leads to, computed in fp32."""
    if steps == 12:
        quarters, sixteenths = torch.arange(5.0)[:, None] / 4, torch.tensor(SHORTCUTS[shortcut]) / 16
        even = (quarters + sixteenths).flatten()[:13]
    else:
        even = torch.linspace(0, 1, steps + 1)
    if curve == "square":
        even = even**2
    elif curve == "piecewise":  # halfway after seven eighths
        even = torch.where(even < 0.875, even * (0.5 / 0.875), 0.5 + (even - 0.875) * 4)
    inverse = 1 / shift
    return tuple((inverse * even / (1 + (inverse - 1) * even)).tolist())


def model_times(times: Sequence[float]) -> list[float]:
    """As the model is told them: 1000 * t in fp32."""
    return (torch.tensor(times) * 1000).tolist()


def intervals(steps: int, shortcut: str) -> tuple[int, ...]:
    """Lengths of the steps relative to one another, as distilled models are told them."""
    if steps % 3:
        return (1,) * steps
    return ((2, 1, 1) if shortcut == "8,16,16" else (1, 1, 2)) * (steps // 3)


def guidance_scales(pipeline: Pipeline, time: float) -> tuple[float, float]:
    """How much the chunks before count at this time, and how much the text does."""
    place = bisect_left([start - 1e-7 for start in pipeline.guidance_times], time) - 1
    return pipeline.previous_scales[place], pipeline.text_scales[place]


def first_seen(pipeline: Pipeline, steps: int, chunk: int, step: int) -> int:
    """The first chunk whose K/V are seen at a step of `steps`; -1: in a prefix, `steps`: after the last step."""
    ranges, clean = pipeline.kv_ranges, pipeline.clean_kv_range
    if step >= 0 and not ranges:
        return 0
    if 0 <= step < steps:
        width = ranges[step * len(ranges) // steps]
    else:
        width = ranges[-1] if clean == -1 and ranges else clean
    if width == -1:
        width = PREFIX_RANGE if step == -1 else chunk + 1
    return max(chunk + 1 - width, 0)


def _needed(rows: Sequence[SamplingStep]) -> int:
    """The most finished chunks that are ever seen again: what lies before need not be stored."""
    needed, first = 0, rows[-1].clean
    for row in reversed(rows):
        first = min([first, *(forward.first for forward in row.forwards if forward.kv_branch is not None)])
        needed = max(needed, row.clean - first)
    return needed
