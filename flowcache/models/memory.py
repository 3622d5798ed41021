"""The memory that a model needs, by arithmetic (docs/models.md spells it out)."""

import math
from dataclasses import dataclass

import torch

from flowcache.models.families import Config, family_of
from flowcache.records import ModelSpec

GIB = 2**30
WAN_WIDTH = 96  # channels of the Wan VAE at full resolution
WAN_FRAMES = 32  # full-resolution frames of that width that decoding holds at once, its history included
VIT_BYTES = 3 * GIB  # MAGI-1's VAE in float32, and what one of its tiles takes


@dataclass(frozen=True)
class Memory:
    """Bytes that one rank needs at the model's default size, in bfloat16."""

    weights: int
    keys_values: int  # at their most, all guidance branches
    activations: int  # an estimate
    codec: int  # an estimate; whole frames are decoded by rank 0 alone

    @property
    def total(self) -> int:
        return self.weights + self.keys_values + self.activations + self.codec

    def __str__(self) -> str:
        parts = {"weights": self.weights, "K/V": self.keys_values, "activations": self.activations, "VAE": self.codec}
        spelled = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
        return f"{self.total / GIB:.1f} GiB per rank ({spelled})"


def memory(spec: ModelSpec, config: Config, ranks: int) -> Memory:
    """What each of `ranks` ranks needs: weights are whole on each, K/V and activations are shared out."""
    flops, pixels = family_of(config).flops, spec.width * spec.height
    tokens = spec.chunk_tokens(spec.width, spec.height)
    chunks, own = spec.window // spec.chunk, math.ceil(tokens / ranks)
    if spec.family == "magi":  # one of its passes fills the only store, reuse keeps velocities, which are small
        stored = max(spec.pipeline.kv_ranges, default=chunks) * tokens
        residuals, codec = 0, VIT_BYTES + 2 * 4 * 3 * spec.chunk_frames * pixels
    else:  # both guidance branches keep K/V and residuals
        stored = 2 * chunks * tokens
        residuals, codec = own * config.dim * 2 * 2 * chunks, 4 * WAN_FRAMES * WAN_WIDTH * pixels
    return Memory(
        weights=weight_bytes(config),
        keys_values=flops.kv_bytes(config, stored, 2) // ranks,
        activations=flops.working_bytes(config, own) + residuals,
        codec=codec,
    )


def weight_bytes(config: Config) -> int:
    """Of a transformer of this shape in bfloat16, but for what stays in float32."""
    family = family_of(config)
    with torch.device("meta"):
        parameters = dict(family.build(config).named_parameters())
    return sum((4 if family.keep_float32(name) else 2) * x.numel() for name, x in parameters.items())
