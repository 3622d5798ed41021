"""One window of a model under a policy, with its cost."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowcache.families.settings import resolve_policy
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel
from flowcache.planner.price import window
from flowcache.records import RenderRequest, Shot
from flowcache.sampling.dry_run import at_most, dry_run
from flowcache.worker.renderer import SegmentRenderer


@dataclass(frozen=True)
class Rendered:
    """frames: uint8 [T, H, W, 3]; forwards: of a chunk, guidance branches counted; CPU seconds, all threads."""

    frames: np.ndarray
    forwards: int
    seconds: float


def render(model: LoadedModel, prompt: str, seed: int, policy: dict[str, Any], steps: int) -> Rendered:
    """One window of the model's length."""
    spec = model.spec
    request = RenderRequest(
        id="measured", shots=(Shot(prompt, spec.frames),), width=spec.width, height=spec.height, fps=spec.fps,
        seed=seed, guidance=spec.guidance, steps=steps, model=spec.name, policy=policy,
        negative_prompt=spec.negative_prompt,
    )  # fmt: skip
    (segment,) = plan(request, spec)
    began = time.process_time()
    chunks = list(SegmentRenderer(model, request, segment, None).chunks())
    seconds = time.process_time() - began
    frames = np.concatenate([chunk.frames for chunk in chunks])
    return Rendered(frames, forwards(model, request, chunks), seconds)


def forwards(model: LoadedModel, request: RenderRequest, chunks: list[Any]) -> int:
    """Steps that were computed, and what is forwarded besides for its K/V alone."""
    (segment,) = plan(request, model.spec)
    every = window(request, segment, model.spec)
    policy = resolve_policy(request.policy, model.spec)
    done = dry_run(every.settings, every.shape, model.transformer.config.patch, at_most(policy))
    return done.forwards - (sum(chunk.steps_reused for chunk in chunks) if policy.reuse else 0)
