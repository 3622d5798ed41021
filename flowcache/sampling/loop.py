"""The denoise loop: one for every family, yielding each chunk as soon as it is clean."""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from flowcache.cache.reuse import Policy
from flowcache.models.base import KVSharding, VideoModel
from flowcache.sampling.plan import Settings, finished_in
from flowcache.sampling.records import FinishedChunk, NotFinite, Texts, Visit
from flowcache.sampling.window import Window

__all__ = ["FinishedChunk", "NotFinite", "Texts", "Visit", "denoise"]


@torch.inference_mode()
def denoise(
    model: VideoModel,
    noise: Tensor,
    texts: Texts,
    settings: Settings,
    policy: Policy,
    prefix: Tensor | None = None,
    condition_noise_of: Callable[[int], Tensor] | None = None,
    observe: Callable[[Visit], None] | None = None,
    end: Tensor | None = None,
    kv_sharding: KVSharding | None = None,
) -> Iterator[FinishedChunk]:
    """Denoise the window `noise` [C, F, H, W], F a whole number of chunks.

    prefix [C, P, H, W] replaces its first P frames. Whole chunks of it condition what follows: they get
    timestep `SamplingPlan.prefix_timestep` and are noised to it by condition_noise_of(row) [C, P, H, W] (chunks'
    part), or stay clean where that is 0, and are not yielded. A rest of P that fills no chunk (the one frame of an
    image, say) is given inside its chunk: unchanged at every step and in the result. So is `end` [C, E, H, W], the
    last E frames of the window, all in its last chunk. ValueError where these don't fit the window or each other.
    """
    began = time.perf_counter()
    window = Window(model, noise, texts, settings, policy, prefix, condition_noise_of, observe, end, kv_sharding)
    for row, tick in enumerate(window.plan.rows):
        window.run(row)
        window.charge(tick, time.perf_counter() - began)
        for chunk in finished_in(window.plan, tick):
            done = window.result(chunk)
            window.store.sharding.agree(chunk, done.decisions)
            yield done
        began = time.perf_counter()
