"""What a calibration asks of walks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from flowcache.cache.fixed_steps import Calibration, Preset
from flowcache.families.settings import resolve_policy, settings_of
from flowcache.sampling.fitting import Example
from flowcache.sampling.loop import Visit, denoise
from flowcache.sampling.planning import plan_for
from flowcache.sampling.records import NotFinite
from flowcache.worker.walking import Ask, Walking
from flowcache.worker.windows import Prompt, Target, finer_for, request_of

NUDGE = 0.01  # of the latents' size
Shown = list[list[float]]  # residuals, by chunk and jump


@dataclass(frozen=True)
class Record(Ask[dict[str, Tensor]]):
    """The target's walk. latents/CHUNK/STEP: before every step, and at the end; products/CHUNK: as `proposal.Walks` has
    them, over the square of the result."""

    prompt: Prompt
    chunks: int
    target: Target

    def answer(self, walking: Walking) -> dict[str, Tensor]:
        spec, finer = walking.spec, finer_for(self.target)
        request = request_of(spec, self.prompt, self.chunks, None if self.target == "off" else 1.0, finer)
        settings, policy = settings_of(request, spec), resolve_policy({"name": "flowcache", "reuse": False}, spec)
        noise, texts = walking.given(request)
        rows = plan_for(settings, noise.shape[1], policy).rows
        branches = max(forward.branch for row in rows for forward in row.forwards if forward.step >= 0) + 1
        found, velocities = dict[str, Tensor](), dict[tuple[int, int, int], Tensor]()

        def observe(visit: Visit) -> None:
            step, between = divmod(visit.step, finer)
            if visit.step < 0 or between:
                return
            found.setdefault(f"latents/{visit.chunk}/{step}", host(visit.latents))
            if visit.velocity is not None:
                velocities[visit.chunk, visit.branch, step] = host(visit.velocity)

        transformer, sharding = walking.model.transformer, walking.model.kv_sharding
        seen = observe if walking.shows else None
        for done in denoise(transformer, noise, texts, settings, policy, observe=seen, kv_sharding=sharding):
            if not walking.shows:
                continue
            chunk = done.index
            found[f"latents/{chunk}/{spec.steps}"] = host(done.latents)
            latents = [found[f"latents/{chunk}/{step}"] for step in range(spec.steps + 1)]
            empty = torch.zeros_like(latents[0])  # of a branch that is not run at a step
            own = [velocities.pop((chunk, branch, step), empty) for branch in range(branches)
                   for step in range(spec.steps)]  # fmt: skip
            found[f"products/{chunk}"] = products([*latents, *own], latents[-1])
        return found


def products(parts: list[Tensor], result: Tensor) -> Tensor:
    """[N, N], in float64: of all parts with all, over the square of the result."""
    every = torch.stack([part.flatten().double() for part in parts])
    return every @ every.T / result.flatten().double().square().sum()


@dataclass(frozen=True)
class Nudged(Ask[dict[str, Tensor]]):
    """latents: one chunk's result, with an error before step `at` whose size is that of its latents, times NUDGE."""

    prompt: Prompt
    at: int | None

    def answer(self, walking: Walking) -> dict[str, Tensor]:
        window = walking.window(self.prompt, 1.0, None, 1)
        for number, row in enumerate(window.plan.rows):
            if self.at is not None and row.steps.get(0) == self.at:
                latents = window.latents.chunks[0]
                draw = torch.randn(latents.shape, generator=torch.Generator().manual_seed(self.at))
                window.latents.replace(0, latents + NUDGE * draw.to(latents), last=False)
            window.run(number)
        return {"latents": host(window.latents.chunks[0])}


@dataclass(frozen=True)
class Result(Ask[tuple[Tensor, Shown]]):
    """[C, F, H, W] of a window that takes the steps of `made`, and its residuals; None: fewer steps. Of one that
    diverges latents that are not finite, and no residuals."""

    prompt: Prompt
    budget: float
    made: Preset | None
    chunks: int

    def answer(self, walking: Walking) -> tuple[Tensor, Shown]:
        window = walking.window(self.prompt, self.budget, self.made, self.chunks)
        shown = Shown()
        try:
            for number in range(len(window.plan.rows)):
                window.run(number)
            shown = [[*window.residuals.read(chunk, window.store.sharding.total)] for chunk in range(self.chunks)]
        except NotFinite:
            pass  # on all ranks of a gang alike, since all have the same latents
        return torch.cat([host(chunk) for chunk in window.latents.chunks], 1), shown


@dataclass(frozen=True)
class Fit(Ask[list[Example]]):
    """`Fitting.examples` of a row, by as many coefficients of `made` as are known; none of a walk that diverged.
    goals: see there."""

    stays: ClassVar[bool] = True
    prompt: Prompt
    made: Calibration
    chunks: int
    row: int
    goals: Mapping[int, Tensor]

    def answer(self, walking: Walking) -> list[Example]:
        first, later = (((),) * len(self.made.steps_of(kind)) for kind in (0, 1))
        bare = replace(self.made, first=first, later=later)
        own = walking.fitting(self.prompt, bare, self.chunks, self.row)
        try:
            return own.examples(self.row, self.made.first, self.made.later, self.goals)
        except NotFinite:
            return []


def host(x: Tensor) -> Tensor:
    """On the CPU, a copy of its own."""
    return x.cpu().clone(memory_format=torch.contiguous_format)
