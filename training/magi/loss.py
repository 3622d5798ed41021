"""The training loss of `tiny-magi`: flow matching on windows of whole chunks."""

from random import Random

import torch
from torch import Generator, Tensor

from flowcache.families.codecs import PatchCodec
from training.magi.data import CHUNK, Windows, draw_windows
from training.magi.model import Tiny
from training.magi.noise import Rows, importance, sample_levels, sample_rows
from training.magi.window import conditions, velocity

LENGTHS = ((1, 5), (1, 5), (1, 5), (2, 3), (3, 2), (5, 1))  # chunks, and how many times as many rows


def loss_of_step(
    model: Tiny, tokenizer, codec: PatchCodec, weights: Tensor, batch: int, rng: Random, generator: Generator
) -> Tensor:
    """The loss of a freshly drawn batch; weights: of the channels."""
    chunks, times = rng.choice(LENGTHS)
    rows = sample_rows(times * batch, chunks, CHUNK, generator)
    return loss_of(model, tokenizer, draw_windows(rows, chunks, rng, codec), rows, weights, generator)


def loss_of(model: Tiny, tokenizer, windows: Windows, rows: Rows, weights: Tensor, generator: Generator) -> Tensor:
    """Squared error of the velocity (clean - noise), weighted by channel and level, of what is to be learned."""
    latents = windows.latents
    chunks = latents.shape[2] // CHUNK
    levels = sample_levels(rows, chunks, generator)
    noise = torch.randn(latents.shape, generator=generator)
    t = levels.repeat_interleave(CHUNK, 1)[:, None, :, None, None]
    given, finished = masks(rows, chunks)
    noisy = torch.where(given[:, None, :, None, None], windows.shown, t * latents + (1 - t) * noise)
    text = conditions(model, tokenizer, windows, rows)
    found = velocity(model.transformer, noisy, levels, text, rows.alone).float()
    error = ((found - (latents - noise)).square() * weights[:, None, None, None]).mean((1, 3, 4))
    error = error * importance(levels).repeat_interleave(CHUNK, 1)
    return error[~given & ~finished].mean()


def masks(rows: Rows, chunks: int) -> tuple[Tensor, Tensor]:
    """[B, frames] each: frames that are given, frames of a finished chunk."""
    frame = torch.arange(chunks * CHUNK)
    start = rows.clean.long()[:, None] * CHUNK
    return (frame >= start) & (frame < start + rows.given[:, None]), frame < start
