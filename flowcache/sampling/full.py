"""Bidirectional attention: the whole window in one forward, as the official model runs by default."""

from typing import Any

from torch import Tensor

from flowcache.models.attention import attention
from flowcache.models.base import VideoModel


def together(model: VideoModel, latents: Tensor, timesteps: Tensor, texts: list[Any], fps: int) -> list[Tensor]:
    """Velocities [1, C, F, H, W] of latents [1, C, F, H, W], one for each of `texts`; timesteps [1, F]."""
    grid = model.grid(latents)
    tokens, rope, conditioning = model.embed(latents), model.rope(grid), model.condition(timesteps, grid, fps)
    hidden = (model.transform(tokens, conditioning, text, rope, attend) for text in texts)
    return [model.project(out, conditioning, grid) for out in hidden]


def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token sees every other."""
    return attention(q, k, v)
