"""Noise as a function of what is rendered, never of the order in which things ran."""

import hashlib

import torch
from torch import Tensor

from flowcache.records import ModelSpec, RenderRequest, Segment


def normal(shape: tuple[int, ...], *key: object) -> Tensor:
    """Standard normal fp32 values on the CPU that depend on `key` alone."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(shape, generator=generator)


def latent_shape(spec: ModelSpec, request: RenderRequest, frames: int) -> tuple[int, int, int, int]:
    return spec.channels, frames, request.height // spec.space_stride, request.width // spec.space_stride


def window_noise(spec: ModelSpec, request: RenderRequest, segment: Segment, prefix: int) -> Tensor:
    """[C, F, h, w]: zeros for `prefix` frames of whole conditioning chunks, then each chunk's own noise."""
    chunks = range(segment.first_chunk, segment.first_chunk + segment.chunks)
    shape = latent_shape(spec, request, spec.chunk)
    return torch.cat(
        [torch.zeros(latent_shape(spec, request, prefix))]
        + [normal(shape, "chunk", request.seed, chunk) for chunk in chunks],
        dim=1,
    )
