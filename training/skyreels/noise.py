"""Noise levels of training samples: what a chunk meets at inference, and a little more."""

import torch
from torch import Generator, Tensor

SHIFT = 3.0
PREFIX_SIGMA = 0.02  # noise on a continuation's prefix (timestep 20 of 1000)


def shifted(sigma: Tensor) -> Tensor:
    """More of the noisy levels, as the sampler has them."""
    return SHIFT * sigma / (1 + (SHIFT - 1) * sigma)


def sample_sigmas(prefix: Tensor, frames: int, chunk: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Noise level of every latent frame [batch, frames] in 0..1, and which frames are to be learned (bool, alike).

    A quarter of the rows has independent levels per chunk, the others the sampler's staircase with a
    random lag, where chunks that have not started get independent levels (no earlier chunk sees them).
    Where `prefix` [batch] is true the first chunk is a continuation's prefix (at PREFIX_SIGMA, sometimes clean);
    in a tenth of the other rows the first frame alone is given (a start from an image).
    """

    def uniform(*shape):
        return torch.rand(shape, generator=generator)

    batch, chunks = len(prefix), frames // chunk
    independent = uniform(batch, chunks)
    lag = 0.05 + 0.5 * uniform(batch, 1)
    progress = uniform(batch, 1) * (1 + (chunks - 1) * lag) - lag * torch.arange(chunks)
    stairs = torch.where(progress < 0, independent, (1 - progress).clamp(min=0))
    sigma = shifted(torch.where(uniform(batch, 1) < 0.25, independent, stairs)).clamp(max=0.999)
    learned = sigma > 0
    sigma[:, 0] = torch.where(prefix, PREFIX_SIGMA * (uniform(batch) < 0.7), sigma[:, 0])
    learned[:, 0] &= ~prefix
    sigma, learned = (x.repeat_interleave(chunk, dim=1) for x in (sigma, learned))
    image = ~prefix & (uniform(batch) < 0.1)
    sigma[:, 0] = torch.where(image, 0.0, sigma[:, 0])
    learned[:, 0] &= ~image
    return sigma, learned
