"""One window by a recipe, and what it took."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from flowcache.bench.recipe import Recipe
from flowcache.families.base import Config
from flowcache.families.settings import config_of
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel
from flowcache.planner.rank_work import flops
from flowcache.records import ModelSpec, RenderRequest, Segment
from flowcache.sampling.dry_run import WindowWork
from flowcache.sampling.loop import Texts, Visit, denoise
from flowcache.sampling.planning import plan_for
from flowcache.worker.noise import latent_shape, normal, window_noise
from flowcache.worker.renderer import SegmentRenderer, to_uint8


@dataclass(frozen=True)
class Walked:
    """latents: [C, F, h, w], fp32, on the CPU. forwards: of a chunk, guidance branches counted; flops: theirs.

    seconds: of denoising, of all CPU threads together, on a GPU of the clock. kv_bytes: of the K/V storage.
    """

    latents: Tensor
    forwards: int
    flops: int
    seconds: float
    kv_bytes: int


@dataclass
class Seen:
    """What was forwarded, as `WindowWork` counts it."""

    forwards: int = 0
    tokens: int = 0
    outputs: int = 0

    def observe(self, visit: Visit) -> None:
        self.outputs += visit.velocity is not None
        if visit.decision.compute:
            self.forwards += 1
            self.tokens += visit.seen


class Studio:
    """Walks windows of one model. Texts are encoded before the clock runs, once for a prompt."""

    def __init__(self, model: LoadedModel):
        self.model = model
        self._texts: dict[str, Texts] = {}

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @cached_property
    def _config(self) -> Config:
        return config_of(self.spec)

    def walk(self, recipe: Recipe, prompt: str, seed: int) -> Walked:
        """seed: of the noise. ValueError for a recipe that the model can't follow."""
        spec, request = self.spec, recipe.request(self.spec, prompt, seed)
        segment = plan(request, spec)[0]
        noise, texts = window_noise(spec, request, segment, 0), self._encoded(request, segment)
        settings, seen = recipe.settings(request, spec), Seen()
        shape = latent_shape(spec, request, spec.chunk)
        began = self._now()
        chunks = list(
            denoise(
                self.model.transformer, noise, texts, settings, recipe.policy, observe=seen.observe,
                step_noise=lambda chunk, step: normal(shape, "step", seed, chunk, step),
            )
        )  # fmt: skip
        seconds = self._now() - began
        latents = torch.cat([chunk.latents.cpu().float() for chunk in chunks], 1)
        branches = plan_for(settings, noise.shape[1], recipe.policy).kv_branches
        tokens = spec.chunk_tokens(spec.width, spec.height)
        work = WindowWork(seen.forwards, seen.tokens, tokens, seen.outputs, 0, branches, 0, 0)
        kv_bytes = max(chunk.kv_bytes for chunk in chunks)
        return Walked(latents, seen.forwards, flops(self._config, work), seconds, kv_bytes)

    @torch.inference_mode()
    def frames(self, latents: Tensor) -> np.ndarray:
        """Decoded: uint8 [T, H, W, 3]."""
        decode = self.model.codec_at(self.spec.fps).stream()
        parts = latents.to(self.model.transformer.device).split(self.spec.chunk, dim=1)
        return np.concatenate([to_uint8(pixels) for part in parts if (pixels := decode(part)) is not None])

    def _encoded(self, request: RenderRequest, segment: Segment) -> Texts:
        prompt = request.shots[0].prompt
        if prompt not in self._texts:  # one prompt is walked after the other
            unnamed = replace(request, policy={"name": "off"})  # texts are the same by all; not all are the family's
            self._texts = {prompt: SegmentRenderer(self.model, unnamed, segment, None).texts()}
        return self._texts[prompt]

    @cached_property
    def _now(self) -> Callable[[], float]:
        device = self.model.transformer.device
        if device.type != "cuda":
            return time.process_time

        def now() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return now
