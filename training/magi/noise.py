"""Noise levels of training windows: what chunks meet in MAGI-1's pipeline, and a little more. t: 0 noise, 1 clean."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

STAGES = 4  # chunks in flight at once: the window of the sampler
CLEAN = 0.9999  # level at which a finished chunk is shown to the next ones
LAST = 0.95  # what is left to learn beyond is noise that can't be seen any more
SHIFT = 3.0


@dataclass(frozen=True)
class Rows:
    """What is drawn for each row of a batch, beside its scene.

    clean: the first chunk is finished (it is shown with the null caption, and not to be learned).
    dropped: the null caption for every chunk. alone: moreover no chunk sees another.
    given: so many latent frames at the start of the first unfinished chunk are clean in the input (an image's
    one, or the rest of a video that is no whole chunk), while the chunk keeps its noise level.
    """

    clean: Tensor
    dropped: Tensor
    alone: Tensor
    given: Tensor


def time_of(progress: Tensor) -> Tensor:
    """Level at a share of the steps: MAGI-1's grid, s = progress squared, t = (s / 3) / (1 - 2 s / 3)."""
    s = progress.square() / SHIFT
    return s / (1 - (SHIFT - 1) * s)


def importance(level: Tensor) -> Tensor:
    """Weight of the loss: about one over what it comes to. Most of it in heavy noise is nothing that can be known."""
    return 1 / (0.3 + (1 - level) ** 8)


def sample_rows(batch: int, chunks: int, frames: int, generator: Generator) -> Rows:
    """Three quarters text, the others without: of those three fifths still see the chunks before.

    Half of the windows begin with a finished chunk; those that are longer than the sampler's all do.
    """

    def share(part: float) -> Tensor:
        return torch.rand(batch, generator=generator) < part

    dropped = share(0.22)
    alone = dropped & share(0.4)
    clean = share(0.5 if chunks <= STAGES else 1) & ~alone & (chunks > 1)
    image, rest = share(0.1), share(0.1)
    some = torch.randint(1, frames, (batch,), generator=generator)
    given = torch.where(image, 1, torch.where(rest, some, 0))
    return Rows(clean, dropped, alone, given)


def sample_levels(rows: Rows, chunks: int, generator: Generator) -> Tensor:
    """Level of each chunk [batch, chunks]: CLEAN for finished ones, independent if alone and in a quarter of the rest.

    The others stand on the sampler's staircase: each chunk a whole stage behind the one before it. The first one may
    be in any stage that leaves room for those behind it.
    """
    batch = len(rows.clean)

    def uniform(*shape):
        return torch.rand(shape, generator=generator)

    lead = chunks - 1 - rows.clean.long()  # stages that the first unfinished chunk is ahead of the last
    first = lead + (uniform(batch) * (STAGES - lead)).floor()
    order = torch.arange(chunks) - rows.clean.long()[:, None]
    stairs = (first[:, None] - order + uniform(batch, 1)) / STAGES
    independent = uniform(batch, chunks)
    progress = torch.where(rows.alone[:, None] | (uniform(batch, 1) < 0.25), independent, stairs)
    levels = time_of(progress.clamp(0, 1)).clamp(max=LAST)
    finished = rows.clean[:, None] & (torch.arange(chunks) == 0)
    return torch.where(finished, CLEAN, levels)
