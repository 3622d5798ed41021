"""Bidirectional attention: the whole window in one forward, as the official model runs by default."""

from typing import Any

from torch import Tensor

from flowcache.models.base import Attend, KVSharding, VideoModel


def joint_forward(
    model: VideoModel, latents: Tensor, timesteps: Tensor, texts: list[Any], fps: int, kv_sharding: KVSharding
) -> list[Tensor]:
    """Velocities [1, C, F, H, W] of latents [1, C, F, H, W], one for each of `texts`; timesteps [1, F]."""
    grid = model.grid(latents)
    tokens, rope, conditioning = model.embed(latents), model.rope(grid), model.condition(timesteps, grid, fps)
    attend = self_only(kv_sharding, grid.tokens)
    hidden = (model.transform(tokens, conditioning, text, rope, attend) for text in texts)
    return [model.project(out, conditioning, grid) for out in hidden]


def self_only(kv_sharding: KVSharding, tokens: int) -> Attend:
    """Each of so many tokens sees all of them, and nothing else."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return kv_sharding.attention(q, k, v, tokens)

    return attend
