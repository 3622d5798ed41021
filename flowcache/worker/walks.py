"""A model's walks for calibration: exact ones are recorded once, others run a fixed schedule."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowcache.cache.fixed_steps import SOLVERS, Conditions, FewerSteps, Preset
from flowcache.cache.policy import Policy
from flowcache.families.settings import resolve_policy, settings_of
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.sampling.budget import allowed, count, steps_within
from flowcache.sampling.dry_run import WindowWork, dry_run
from flowcache.sampling.fitting import Path as Walk
from flowcache.sampling.latents import Given
from flowcache.sampling.loop import Texts, Visit, denoise
from flowcache.sampling.plan import Settings
from flowcache.sampling.planning import plan_for
from flowcache.sampling.proposal import Walks
from flowcache.sampling.solver import Euler
from flowcache.sampling.thinned import Jumps
from flowcache.sampling.window import Window
from flowcache.worker.noise import window_noise
from flowcache.worker.renderer import SegmentRenderer

FINER = 3  # times the steps of a walk that counts as converged
PROBES = 10  # steps at which an error is put into a walk, to see what becomes of it
NUDGE = 0.01  # of the latents' size
Target = Literal["off", "converged"]
Shown = list[list[float]]  # residuals, by chunk and jump


@dataclass(frozen=True)
class Prompt:
    text: str
    seed: int


@dataclass(frozen=True)
class Walker:
    """Of a model, at its own steps, shift, guidance and lag. work: folder for walks that are recorded once."""

    model: LoadedModel
    target: Target
    work: Path
    _texts: dict[str, Texts] = field(default_factory=dict, compare=False, repr=False)

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def finer(self) -> int:
        return FINER if self.target == "converged" else 1

    def conditions(self) -> Conditions:
        """ValueError where the family has no fixed schedules."""
        request = self._request(Prompt("", 0), 1, budget=1.0)
        policy = resolve_policy({"name": "flowcache", "budget": 1.0}, self.spec)
        found = settings_of(request, self.spec).plan(self.spec.chunk, policy).conditions
        if found is None:
            raise ValueError(f"{self.spec.name} can't be calibrated: its family has no fixed schedules")
        return found

    def exact(self, prompt: Prompt, chunks: int) -> Walk:
        """The target's latents before every step, and at the end."""
        with safe_open(self._recorded(prompt, chunks), "pt") as file:  # velocities, most of it, stay where they are
            keys = {tuple(map(int, name.split("/"))): name for name in file.keys() if name.count("/") == 1}  # noqa: SIM118
            return {(chunk, step): file.get_tensor(name) for (chunk, step), name in keys.items()}

    @property
    def whole(self) -> int:
        """Chunks of a window."""
        return self.spec.window // self.spec.chunk

    def key(self, prompt: Prompt, chunks: int) -> list[str | int]:
        """What the target's walk depends on."""
        return [self.spec.digest, self.target, prompt.text, prompt.seed, chunks]

    def _recorded(self, prompt: Prompt, chunks: int) -> Path:
        """The file: by chunk/step latents, by chunk/step/branch velocities."""
        told = json.dumps(self.key(prompt, chunks))
        file = self.work / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.safetensors"
        if not file.exists():
            part = file.with_suffix(".part")
            save_file(self._record(prompt, chunks), part)
            part.replace(file)
        return file

    def _record(self, prompt: Prompt, chunks: int) -> dict[str, Tensor]:
        request = self._request(prompt, chunks, None if self.target == "off" else 1.0, self.finer)
        found = dict[str, Tensor]()

        def observe(visit: Visit) -> None:
            step, between = divmod(visit.step, self.finer)
            if visit.step >= 0 and not between:
                found.setdefault(
                    f"{visit.chunk}/{step}", visit.latents.cpu().clone(memory_format=torch.contiguous_format)
                )
                if visit.velocity is not None:
                    found[f"{visit.chunk}/{step}/{visit.branch}"] = visit.velocity.cpu().clone(
                        memory_format=torch.contiguous_format
                    )

        policy = resolve_policy({"name": "flowcache", "reuse": False}, self.spec)
        noise, texts = self._given(request)
        settings = settings_of(request, self.spec)
        for done in denoise(self.model.transformer, noise, texts, settings, policy, observe=observe):
            found[f"{done.index}/{self.spec.steps}"] = done.latents.cpu().clone()
        return found

    def walks(self, prompts: Sequence[Prompt], chunks: int) -> Walks:
        """What a schedule is proposed from."""
        files = [load_file(self._recorded(prompt, chunks)) for prompt in prompts]
        found = [[(name.split("/"), x) for name, x in own.items()] for own in files]
        branches = max(int(key[2]) for own in found for key, _ in own if len(key) == 3) + 1
        products = torch.stack([gram for own in found for gram in self._products(own, branches)]).mean(0)
        solver = self.window(Prompt("", 0), 1.0, None, 1).plan.solver
        assert isinstance(solver, Jumps)
        time = torch.tensor(solver.carried, dtype=torch.float64)
        return Walks(self.conditions().lag, products, self._growth(prompts[0]), time)

    def _products(self, recorded: list[tuple[list[str], Tensor]], branches: int) -> list[Tensor]:
        """Of each chunk. A branch that is not run at a step gives nothing there."""
        steps, chunks = self.spec.steps, defaultdict[int, dict[tuple[int, ...], Tensor]](dict)
        for (chunk, *key), x in recorded:
            chunks[int(chunk)][tuple(map(int, key))] = x.flatten().double()
        found = []
        for own in chunks.values():
            empty = torch.zeros_like(own[0,])
            latents = [own[step,] for step in range(steps + 1)]
            velocities = [own.get((step, branch), empty) for branch in range(branches) for step in range(steps)]
            every = torch.stack([*latents, *velocities])
            found.append(every @ every.T / latents[-1].square().sum())
        return found

    def _growth(self, prompt: Prompt) -> Tensor:
        """[steps + 1]: to what a small error of one chunk's latents before a step grows; between probes as they go."""
        steps = self.spec.steps
        probes = sorted({round(number * (steps - 1) / (PROBES - 1)) for number in range(PROBES)})
        exact = self._nudged(prompt, None)
        grown = [self._nudged(prompt, step).sub(exact).norm() / NUDGE / exact.norm() for step in probes]
        known = torch.tensor([*probes, steps], dtype=torch.float64)
        logs = torch.stack([*grown, torch.tensor(1.0)]).double().clamp_min(1e-6).log()
        found = torch.empty(steps + 1, dtype=torch.float64)
        for step in range(steps + 1):
            after = int(torch.searchsorted(known, float(step)))
            share = (step - known[after - 1]) / (known[after] - known[after - 1]) if after else 1.0
            found[step] = logs[after - 1] + share * (logs[after] - logs[after - 1]) if after else logs[0]
        return found.exp()

    def _nudged(self, prompt: Prompt, at: int | None) -> Tensor:
        """One chunk's result, with an error before step `at` whose size is that of the result's, times NUDGE."""
        window = self.window(prompt, 1.0, None, 1)
        with torch.inference_mode():
            for number, row in enumerate(window.plan.rows):
                if at is not None and row.steps.get(0) == at:
                    latents = window.latents.chunks[0]
                    draw = torch.randn(latents.shape, generator=torch.Generator().manual_seed(at))
                    window.latents.replace(0, latents + NUDGE * draw.to(latents), last=False)
                window.run(number)
        return window.latents.chunks[0].cpu()

    def result(self, prompt: Prompt, budget: float, made: Preset | None, chunks: int) -> tuple[Tensor, Shown]:
        """[C, F, H, W] of a window that takes the steps of `made`, and its residuals; None: fewer steps."""
        window = self.window(prompt, budget, made, chunks)
        with torch.inference_mode():
            for number in range(len(window.plan.rows)):
                window.run(number)
            shown = [[*window.residuals.read(chunk, window.store.sharding.total)] for chunk in range(chunks)]
        return torch.cat([chunk.cpu() for chunk in window.latents.chunks], 1), shown

    def window(self, prompt: Prompt, budget: float, made: Preset | None, chunks: int) -> Window:
        """Not walked yet."""
        request = self._request(prompt, chunks, budget)
        spec = replace(self.spec, calibrations=(made,) if made else ())
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

    def forwards(self, made: Preset) -> int:
        """Of a chunk, that a whole window takes by the steps of `made`."""
        settings, policy = self._policy(made.budget, made)
        return count(plan_for(settings, self.whole * self.spec.chunk, policy))

    def runs(self, budget: float, share: float) -> list[FewerSteps]:
        """Of fewer steps, from that share of what the budget allows to all of it, by each solver, with a lag in
        proportion rounded either way; the one that nobody has measured first."""
        settings, policy = self._policy(budget, None)
        at, frames = self.conditions(), self.whole * self.spec.chunk
        most = steps_within(settings, policy, frames)
        first = plan_for(settings, frames, policy)
        usual = FewerSteps(budget, at, most, first.conditions.lag if first.conditions else at.lag)
        found = [usual]
        for steps in range(most, math.ceil(most * share) - 1, -1):
            exact = at.lag * steps / at.steps
            lags = {max(rounded, min(at.lag, 1)) for rounded in (math.floor(exact), math.ceil(exact))}
            solvers = SOLVERS if isinstance(first.solver, Euler) else SOLVERS[:1]
            found += [FewerSteps(budget, at, steps, lag, solver) for lag in sorted(lags) for solver in solvers]
        return [*dict.fromkeys(found)]

    def allowed(self, budget: float) -> float:
        """Chunk forwards of a whole window."""
        settings, policy = self._policy(budget, None)
        return allowed(settings, policy, self.whole * self.spec.chunk)

    def exact_work(self, chunks: int, finer: int) -> WindowWork:
        """What a walk of so many chunks takes that computes every step, `finer` times as many of them."""
        request = self._request(Prompt("", 0), chunks, None, finer)
        return self._work(chunks, settings_of(request, self.spec), self._policy(1.0, None)[1].exact)

    def budget_work(self, chunks: int, budget: float) -> WindowWork:
        """What a walk of so many chunks takes by fewer steps."""
        return self._work(chunks, *self._policy(budget, None))

    def _work(self, chunks: int, settings: Settings, policy: Policy) -> WindowWork:
        spec = self.spec
        shape = chunks * spec.chunk, spec.height // spec.space_stride, spec.width // spec.space_stride
        return dry_run(settings, shape, (1, spec.patch, spec.patch), policy)

    def _policy(self, budget: float, made: Preset | None) -> tuple[Settings, Policy]:
        request = self._request(Prompt("", 0), 1, budget)
        spec = replace(self.spec, calibrations=(made,) if made else ())
        return settings_of(request, spec), resolve_policy(request.policy, spec)

    def _given(self, request: RenderRequest) -> tuple[Tensor, Texts]:
        (segment,) = plan(request, self.spec)
        key = f"{segment.chunks} {request.shots[0].prompt}"
        if key not in self._texts:
            self._texts[key] = SegmentRenderer(self.model, request, segment, None).texts()
        return window_noise(self.spec, request, segment, 0), self._texts[key]
