"""Noise levels of training windows: what chunks meet in MAGI-1's pipeline, and a little more. t: 0 noise, 1 clean."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

STAGES = 4  # chunks in flight at once: the window of the sampler
CLEAN = 0.9999  # level at which a finished chunk is shown to the next ones
LAST = 0.95  # what is left to learn beyond is noise that can't be seen any more
SHIFT = 3.0
USUAL = 1.78  # mean of `importance` over the sampler's staircase


@dataclass(frozen=True)
class Shares:
    """Of rows. dropped_single: without caption, of windows of one chunk; dropped: of longer ones; alone: of these, so
    many whose chunks see no other.

    finished: windows of several chunks that begin with a finished one; `later` of them are later parts of a video,
    the others begin anywhere, as `anywhere` of the remaining rows do. changed: windows of several chunks that change
    their motion at a chunk, having begun as videos do. still, rest: the first chunk's first frame, or some, are given.
    """

    dropped_single: float = 0.22
    dropped: float = 0.14
    alone: float = 0.4
    finished: float = 0.5
    later: float = 0.48
    anywhere: float = 0.2
    changed: float = 0.25
    still: float = 0.1
    rest: float = 0.1


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
    """Level at a share of the steps: MAGI-1's grid, s = progress squared, then the shift."""
    return shifted(progress.square())


def shifted(level: Tensor) -> Tensor:
    """More of the noisy levels: t = (s / 3) / (1 - 2 s / 3)."""
    s = level / SHIFT
    return s / (1 - (SHIFT - 1) * s)


def importance(level: Tensor) -> Tensor:
    """Weight of the loss: about one over what it comes to. Most of it in heavy noise is nothing that can be known."""
    return 1 / (0.3 + (1 - level) ** 8)


def sample_rows(batch: int, chunks: int, frames: int, generator: Generator, shares: Shares = Shares()) -> Rows:
    """As `shares` says; windows that are longer than the sampler's all begin with a finished chunk."""

    def share(part: float) -> Tensor:
        return torch.rand(batch, generator=generator) < part

    dropped = share(shares.dropped if chunks > 1 else shares.dropped_single)
    alone = dropped & share(shares.alone)
    clean = share(shares.finished if chunks <= STAGES else 1) & ~alone & (chunks > 1)
    image, rest = share(shares.still), share(shares.rest)
    some = torch.randint(1, max(2, frames), (batch,), generator=generator)
    given = torch.where(image, 1, torch.where(rest, some, 0)) * (frames > 1)
    return Rows(clean, dropped, alone, given)


def sample_levels(rows: Rows, chunks: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Level of each chunk [batch, chunks], CLEAN for finished ones, and its weight in the loss.

    Single chunks, rows that are alone and a quarter of the others have independent levels. The rest stands on the
    sampler's staircase: each chunk a whole stage behind the one before it. The first one may be in any stage that
    leaves room for those behind it.
    """
    batch = len(rows.clean)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    lead = chunks - 1 - rows.clean.long()  # stages that the first unfinished chunk is ahead of the last
    first = lead + (uniform(batch) * (STAGES - lead)).floor()
    order = torch.arange(chunks) - rows.clean.long()[:, None]
    stairs = time_of(((first[:, None] - order + uniform(batch, 1)) / STAGES).clamp(0, 1))
    independent = shifted(uniform(batch, chunks))
    free = rows.alone[:, None] | (uniform(batch, 1) < 0.25) | (chunks == 1)
    levels = torch.where(free, independent, stairs).clamp(max=LAST)
    finished = rows.clean[:, None] & (torch.arange(chunks) == 0)
    weights = torch.where(free, 1.0, importance(levels) / USUAL)
    return torch.where(finished, CLEAN, levels), weights
