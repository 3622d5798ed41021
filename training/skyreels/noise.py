"""Noise levels of training samples: what a chunk meets at inference, and a little more."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

SHIFT = 3.0
PREFIX_SIGMA = 0.02  # noise on a continuation's prefix (timestep 20 of 1000)


@dataclass(frozen=True)
class Shares:
    """Of rows. continued: begin with a continuation's prefix. together: all chunks at one level. independent: each at
    one of its own. image: start from a given first frame. dropped: without caption.
    """

    continued: float = 0.3
    together: float = 0.2
    independent: float = 0.25
    image: float = 0.1
    dropped: float = 0.1


def shifted(sigma: Tensor) -> Tensor:
    """More of the noisy levels, as the sampler has them."""
    return SHIFT * sigma / (1 + (SHIFT - 1) * sigma)


def sample_sigmas(
    prefix: Tensor, frames: int, chunk: int, generator: Generator, shares: Shares = Shares()
) -> tuple[Tensor, Tensor]:
    """Noise level of every latent frame [batch, frames] in 0..1, and which frames are to be learned (bool, alike).

    Rows have the sampler's staircase with a random lag, where chunks that have not started get independent levels (no
    earlier chunk sees them), or as `shares` says. Where `prefix` [batch] is true the first chunk is a continuation's
    prefix (at PREFIX_SIGMA, sometimes clean); in some of the other rows the first frame alone is given (a start from
    an image).
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    batch, chunks = len(prefix), frames // chunk
    independent, kind = uniform(batch, chunks), uniform(batch, 1)
    lag = (0.05 + 0.5 * uniform(batch, 1)) * (kind >= shares.together)
    progress = uniform(batch, 1) * (1 + (chunks - 1) * lag) - lag * torch.arange(chunks)
    stairs = torch.where(progress < 0, independent, (1 - progress).clamp(min=0))
    sigma = shifted(torch.where(kind > 1 - shares.independent, independent, stairs)).clamp(max=0.999)
    learned = sigma > 0
    sigma[:, 0] = torch.where(prefix, PREFIX_SIGMA * (uniform(batch) < 0.7), sigma[:, 0])
    learned[:, 0] &= ~prefix
    sigma, learned = (x.repeat_interleave(chunk, dim=1) for x in (sigma, learned))
    image = ~prefix & (uniform(batch) < shares.image) & (frames > 1)
    sigma[:, 0] = torch.where(image, 0.0, sigma[:, 0])
    learned[:, 0] &= ~image
    return sigma, learned
