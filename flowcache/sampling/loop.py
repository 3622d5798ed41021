"""The denoise loop: one for every family, yielding each chunk as soon as it is clean."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from flowcache.cache.policy import Policy
from flowcache.models.base import KVSharding, VideoModel
from flowcache.sampling.latents import Given, NoiseOf
from flowcache.sampling.plan import Settings, finished_in
from flowcache.sampling.records import FinishedChunk, NotFinite, Texts, Visit
from flowcache.sampling.window import Observe, StepNoise, Window

__all__ = ["FinishedChunk", "NotFinite", "Texts", "Visit", "denoise"]


@torch.inference_mode()
def denoise(
    model: VideoModel,
    noise: Tensor,
    texts: Texts,
    settings: Settings,
    policy: Policy,
    prefix: Tensor | None = None,
    condition_noise_of: NoiseOf | None = None,
    observe: Observe | None = None,
    end: Tensor | None = None,
    kv_sharding: KVSharding | None = None,
    step_noise: StepNoise | None = None,
    packed: bool = True,
) -> Iterator[FinishedChunk]:
    """Denoise the window `noise` [C, F, H, W], F a whole number of chunks.

    prefix [C, P, H, W] replaces its first P frames. Whole chunks of it condition what follows: they get
    timestep `SamplingPlan.prefix_timestep` and are noised to it by condition_noise_of(row) [C, P, H, W] (chunks'
    part), or stay clean where that is 0, and are not yielded. A rest of P that fills no chunk (the one frame of an
    image, say) is given inside its chunk: unchanged at every step and in the result. So is `end` [C, E, H, W], the
    last E frames of the window, all in its last chunk. step_noise(chunk, step) [C, f, H, W]: for solvers that draw
    noise between steps. packed: False to run one forward at a time, for the memory's sake. ValueError where these don't
    fit the window or each other.
    """
    began = time.perf_counter()
    given = Given(prefix, end, condition_noise_of)
    window = Window(model, noise, texts, settings, policy, given, observe, kv_sharding, step_noise, packed)
    for number, row in enumerate(window.plan.rows):
        window.run(number)
        if row.steps:  # what runs in a row without one, runs for the next
            window.charge(row, time.perf_counter() - began)
        for chunk in finished_in(window.plan, row):
            done = window.result(chunk)
            window.store.sharding.agree(chunk, done.decisions)
            yield done
        began = time.perf_counter() if row.steps else began
