"""Calibrates fixed schedules of a checkpoint: records exact walks, fits corrections, keeps what helps other prompts."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowcache.cache.fixed_steps import Calibration, Conditions, even_steps
from flowcache.families.settings import resolve_policy, settings_of
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.sampling.dry_run import dry_run
from flowcache.sampling.fitting import Path as Walk
from flowcache.sampling.fitting import fit
from flowcache.sampling.latents import Given
from flowcache.sampling.loop import Texts, Visit, denoise
from flowcache.sampling.window import Window
from flowcache.worker.noise import window_noise
from flowcache.worker.renderer import SegmentRenderer

FINER = 3  # times the steps of a walk that counts as converged
WORST = 3.0  # dB
CHUNKS = 2  # of a window that is fitted: its first chunk, and one for all later ones
Target = Literal["off", "converged"]


@dataclass(frozen=True)
class Prompt:
    text: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What became of a budget. plain, corrected: of each prompt that was not fitted on, dB of the latents to the
    target, with the even schedule alone and with the corrections; kept: whether those are in `calibration`.
    """

    calibration: Calibration
    plain: tuple[float, ...]
    corrected: tuple[float, ...]
    kept: bool


@dataclass(frozen=True)
class Calibrator:
    """Of a model, at its own steps, shift, guidance and lag. work: folder for walks that are recorded once."""

    model: LoadedModel
    target: Target
    work: Path

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    def calibrate(self, budget: float, prompts: Sequence[Prompt], others: Sequence[Prompt]) -> Outcome:
        """Fitted on `prompts`, judged by `others`: where these are not closer by mean and median, nothing is added."""
        conditions = self.conditions()
        computed = even_steps(conditions.steps, budget)
        nothing = ((),) * len(computed)
        plain = Calibration(budget, conditions, computed, nothing, nothing)
        windows = [self._window(prompt, budget, plain) for prompt in prompts]
        first, later = fit(windows, [self.walk(prompt, CHUNKS) for prompt in prompts])
        made = replace(plain, first=first, later=later)
        before, after = ([self.closeness(prompt, budget, each) for prompt in others] for each in (plain, made))
        kept = made != plain and mean(after) > mean(before) and median(after) > median(before)
        return Outcome(made if kept else plain, tuple(before), tuple(after), kept)

    def conditions(self) -> Conditions:
        found = settings_of(self._request(Prompt("", 0), 1, budget=1.0), self.spec).plan(
            self.spec.chunk, resolve_policy({"name": "flowcache", "budget": 1.0}, self.spec)
        )
        if found.conditions is None:
            raise ValueError(f"{self.spec.name} can't be calibrated: its family has no fixed schedules")
        return found.conditions

    def closeness(self, prompt: Prompt, budget: float, made: Calibration) -> float:
        """dB of a whole window's latents to the target's; a prompt that became another sample counts as WORST."""
        chunks = self.spec.window // self.spec.chunk
        window, steps = self._window(prompt, budget, made, chunks), made.conditions.steps
        exact = self.walk(prompt, chunks)
        with torch.inference_mode():
            for number in range(len(window.plan.rows)):
                window.run(number)
        ours = torch.cat([chunk.cpu() for chunk in window.latents.chunks], 1)
        theirs = torch.cat([exact[chunk, steps] for chunk in range(chunks)], 1)
        error = (ours - theirs).square().mean().clamp_min(1e-12)
        return max(float(10 * torch.log10(theirs.square().mean() / error)), WORST)

    def walk(self, prompt: Prompt, chunks: int) -> Walk:
        """The target's latents before every step, and at the end; recorded once."""
        told = json.dumps([self.spec.digest, self.target, prompt.text, prompt.seed, chunks])
        file = self.work / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.safetensors"
        if not file.exists():
            part = file.with_suffix(".part")
            save_file({f"{chunk}/{step}": x for (chunk, step), x in self._record(prompt, chunks).items()}, part)
            part.replace(file)
        named = ((*map(int, name.split("/")), x) for name, x in load_file(file).items())
        return {(chunk, step): x for chunk, step, x in named}

    def _record(self, prompt: Prompt, chunks: int) -> dict[tuple[int, int], Tensor]:
        finer = FINER if self.target == "converged" else 1
        request = self._request(prompt, chunks, None if self.target == "off" else 1.0, finer)
        steps, found = self.spec.steps, dict[tuple[int, int], Tensor]()

        def observe(visit: Visit) -> None:
            step, between = divmod(visit.step, finer)
            if visit.step >= 0 and not between:
                found.setdefault((visit.chunk, step), visit.latents.cpu().clone())

        settings = settings_of(request, self.spec)
        policy = resolve_policy({"name": "flowcache", "reuse": False}, self.spec)
        noise, texts = self._given(request)
        for done in denoise(self.model.transformer, noise, texts, settings, policy, observe=observe):
            found[done.index, steps] = done.latents.cpu().clone()
        return found

    def _window(self, prompt: Prompt, budget: float, made: Calibration, chunks: int = CHUNKS) -> Window:
        request = self._request(prompt, chunks, budget)
        spec = replace(self.spec, calibrations=(made,))
        policy = resolve_policy(request.policy, spec)
        noise, texts = self._given(request)
        return Window(self.model.transformer, noise, texts, settings_of(request, spec), policy, Given())

    def _request(self, prompt: Prompt, chunks: int, budget: float | None, finer: int = 1) -> RenderRequest:
        spec = self.spec
        policy = {"name": "off"} if budget is None else {"name": "flowcache", "budget": budget}
        return RenderRequest(
            "calibrated", (Shot(prompt.text, spec.video_frames(chunks * spec.chunk)),), spec.width, spec.height,
            spec.fps, prompt.seed, spec.guidance, spec.steps * finer, spec.name, policy, spec.negative_prompt,
        )  # fmt: skip

    def forwards(self, budgets: Sequence[float], prompts: int, others: int) -> int:
        """Of a chunk, at the most: walks to be recorded, and those of each budget."""
        whole, finer = self.spec.window // self.spec.chunk, FINER if self.target == "converged" else 1
        found = 0
        for count, chunks, times in ((prompts, CHUNKS, 1), (others, whole, 2)):
            walks = [(1.0, finer), *((budget, 1) for budget in budgets for _ in range(times))]
            found += count * sum(self._forwards(chunks, *walk) for walk in walks)
        return found

    def _forwards(self, chunks: int, budget: float, finer: int) -> int:
        request, spec = self._request(Prompt("", 0), chunks, budget, finer), self.spec
        shape = chunks * spec.chunk, spec.height // spec.space_stride, spec.width // spec.space_stride
        policy = resolve_policy(request.policy, spec)
        return dry_run(settings_of(request, spec), shape, (1, spec.patch, spec.patch), policy).forwards

    def _given(self, request: RenderRequest) -> tuple[Tensor, Texts]:
        (segment,) = plan(request, self.spec)
        texts = SegmentRenderer(self.model, request, segment, None).texts()
        return window_noise(self.spec, request, segment, 0), texts
