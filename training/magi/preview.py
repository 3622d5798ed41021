"""A plain loop for previews of `tiny-magi`: the staircase of chunks, three guidance passes, Euler steps."""

import torch
from torch import Tensor

from flowcache.bench.shapes import SIZE
from training.codec import CHANNELS
from training.magi.data import LENGTHS, Windows
from training.magi.model import Tiny
from training.magi.noise import CLEAN, STAGES, Rows, time_of
from training.magi.window import conditions, velocity
from training.task import Length

EARLY = 0.3  # until then guidance is stronger
WHOLE = LENGTHS["3"]


@torch.no_grad()
def denoise(
    model: Tiny,
    tokenizer,
    prompts: list[str],
    length: Length = WHOLE,
    steps: int = 32,
    guidance: float = 3.0,
    seed: int = 0,
) -> Tensor:
    """Clean latents [B, C, length.frames, h, w], the same prompt for every chunk of a video."""
    chunks, size, side, per = length.chunks, length.size, SIZE // 8, steps // STAGES
    x = torch.randn(len(prompts), CHANNELS, length.frames, side, side, generator=torch.Generator().manual_seed(seed))
    times = time_of(torch.linspace(0, 1, steps + 1))
    for tick in range(per * (chunks + STAGES - 1)):
        stage = tick // per
        first, last = max(0, stage - STAGES + 1), min(chunks, stage + 1)
        begin = max(0, first - 1)
        step = (tick - per * torch.arange(begin, last)).clamp(max=steps)
        levels = torch.where(step < steps, times[step], CLEAN).expand(len(prompts), -1)
        part = slice(begin * size, last * size)
        v = guided(model, tokenizer, x[:, :, part], levels, prompts, begin < first, chunks - 1 - begin, guidance)
        delta = (times[(step + 1).clamp(max=steps)] - times[step]).repeat_interleave(size)
        x[:, :, part] += delta[:, None, None] * v
    return x


def guided(
    model: Tiny, tokenizer, x: Tensor, levels: Tensor, prompts: list[str], clean: bool, left: int, guidance: float
) -> Tensor:
    """With text, with the chunks before alone, with nothing: of each chunk by its level."""
    batch, chunks = levels.shape
    captions = [prompt for prompt in prompts for _ in range(chunks)]
    remaining = [left - chunk for _ in prompts for chunk in range(chunks)]

    def one(dropped: bool, alone: bool) -> Tensor:
        first, none, apart = (torch.full((batch,), on) for on in (clean, dropped, alone))
        rows = Rows(first, none, apart, torch.zeros(batch, dtype=torch.long))
        text = conditions(model, tokenizer, Windows(x, x, x, levels, levels, rows, captions, remaining))
        return velocity(model.transformer, x, levels, text, rows.alone)

    early = (levels < EARLY).repeat_interleave(x.shape[2] // chunks, 1)[:, None, :, None, None]
    previous, text = (torch.where(early, *scales) for scales in ((1.5, 1.0), (guidance, guidance / 2)))
    return (1 - previous) * one(True, True) + (previous - text) * one(True, False) + text * one(False, False)
