"""The training loss of `tiny-magi`: flow matching on windows of chunks."""

import torch
from torch import Tensor

from training.magi.data import Windows
from training.magi.model import Tiny
from training.magi.noise import Rows
from training.magi.window import conditions, velocity
from training.task import Loss


def loss_of(model: Tiny, tokenizer, windows: Windows) -> Loss:
    """Squared error of the velocity (clean - noise), weighted by level, of what is to be learned."""
    latents, noise, rows = windows.latents, windows.noise, windows.rows
    chunks = windows.levels.shape[1]
    size = latents.shape[2] // chunks
    t = windows.levels.repeat_interleave(size, 1)[:, None, :, None, None]
    given, finished = masks(rows, chunks, size)
    noisy = torch.where(given[:, None, :, None, None], windows.shown, t * latents + (1 - t) * noise)
    text = conditions(model, tokenizer, windows)
    found = velocity(model.transformer, noisy, windows.levels, text, rows.alone).float()
    error = (found - (latents - noise)).square().mean((1, 3, 4)) * windows.weights.repeat_interleave(size, 1)
    learned = ~given & ~finished
    return Loss(error[learned].sum(), learned.sum())


def masks(rows: Rows, chunks: int, size: int) -> tuple[Tensor, Tensor]:
    """[B, frames] each: frames that are given, frames of a finished chunk."""
    frame = torch.arange(chunks * size)
    start = rows.clean.long()[:, None] * size
    return (frame >= start) & (frame < start + rows.given[:, None]), frame < start
