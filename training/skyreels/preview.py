"""Previews of `tiny-skyreels` by a plain loop: whole windows, Euler steps, staggered, block-causal attention."""

import torch
from torch import Tensor

from flowcache.bench.shapes import SIZE
from training.codec import CHANNELS
from training.skyreels.loss import LENGTHS
from training.skyreels.model import CHUNK, FPS, TEXT_LEN, Tiny
from training.skyreels.noise import PREFIX_SIGMA, shifted
from training.task import Length
from training.text import encode_batch

WHOLE = LENGTHS["5"]
STAGGER = 5  # the share of its steps after which the next chunk begins


@torch.no_grad()
def denoise(
    model: Tiny,
    tokenizer,
    prompts: list[str],
    length: Length = WHOLE,
    steps: int = 30,
    guidance: float = 3.0,
    seed: int = 0,
    prefix: Tensor | None = None,
) -> Tensor:
    """Clean latents [B, C, length.frames, h, w]; `prefix`: latents of the first chunk, which is kept."""
    frames, side = length.frames, SIZE // 8
    x = torch.randn(len(prompts), CHANNELS, frames, side, side, generator=torch.Generator().manual_seed(seed))
    sigmas = torch.cat([shifted(torch.linspace(0.999, 0, steps + 1)[:-1]), torch.zeros(1)])
    text, _ = encode_batch(model.text_encoder, tokenizer, prompts + [""] * len(prompts), TEXT_LEN)
    ar_step = steps // STAGGER
    lag = torch.arange(length.chunks) * ar_step
    if prefix is not None:
        noise = x[:, :, :CHUNK]
        x[:, :, :CHUNK] = (1 - PREFIX_SIGMA) * prefix + PREFIX_SIGMA * noise
        lag = (lag - ar_step).clamp(min=0)
    for tick in range(steps + int(lag[-1])):
        step = (tick - lag).clamp(0, steps)
        now, after = sigmas[step], sigmas[(tick + 1 - lag).clamp(0, steps)]
        if prefix is not None:
            now[0] = after[0] = PREFIX_SIGMA
        now, after = (s.repeat_interleave(length.size) for s in (now, after))
        timesteps = (now * 1000).expand(2 * len(prompts), -1)
        v, empty = model.transformer(torch.cat([x, x]), timesteps, text, FPS, CHUNK).chunk(2)
        v = empty + guidance * (v - empty)
        x = x + (after - now)[:, None, None] * v
    return x
