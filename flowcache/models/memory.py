"""The memory that a model needs, by arithmetic (docs/models.md spells it out)."""

import math
from dataclasses import dataclass

import torch
from torch import nn

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
    codec: int  # an estimate; only rank 0 decodes
    gathered: int = 0  # blocks of sharded weights while they run

    @property
    def total(self) -> int:
        return self.weights + self.gathered + self.keys_values + self.activations + self.codec

    def __str__(self) -> str:
        gathered = {"gathered blocks": self.gathered} if self.gathered else {}
        rest = {"K/V": self.keys_values, "activations": self.activations, "VAE": self.codec}
        parts = {"weights": self.weights} | gathered | rest
        spelled = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
        return f"{self.total / GIB:.1f} GiB per rank ({spelled})"


def memory(spec: ModelSpec, config: Config, ranks: int, sharded: bool = False) -> Memory:
    """What each of `ranks` ranks needs: K/V and activations are shared out, weights are whole on each or `sharded`."""
    flops, pixels = family_of(config).flops, spec.width * spec.height
    tokens = spec.chunk_tokens(spec.width, spec.height)
    chunks, own = spec.window // spec.chunk, math.ceil(tokens / ranks)
    if spec.family == "magi":  # one of its passes fills the only store, reuse keeps velocities, which are small
        stored = max(spec.pipeline.kv_ranges, default=chunks) * tokens
        residuals, codec = 0, VIT_BYTES + 2 * 4 * 3 * spec.chunk_frames * pixels
    else:  # both guidance branches keep K/V and residuals
        stored = 2 * chunks * tokens
        residuals, codec = own * config.dim * 2 * 2 * chunks, 4 * WAN_FRAMES * WAN_WIDTH * pixels
    weights = weight_bytes(config, ranks if sharded else 1)
    return Memory(
        weights=weights.held,
        keys_values=flops.kv_bytes(config, stored, 2) // ranks,
        activations=flops.working_bytes(config, own) + residuals,
        codec=codec,
        gathered=weights.gathered,
    )


@dataclass(frozen=True)
class WeightBytes:
    """Of one rank. gathered: at their most, beside those `held`; sent: to the other ranks, in each chunk's forward."""

    held: int
    gathered: int = 0
    sent: int = 0


def weight_bytes(config: Config, ranks: int = 1) -> WeightBytes:
    """Of a transformer of this shape in bfloat16, but for what stays in float32; blocks sharded over `ranks` > 1.

    FSDP2 gives each rank the same number of a tensor's rows, padded. While a block runs, its tensors are there, and
    the buffers that it came in and the next one comes in.
    """
    family = family_of(config)
    with torch.device("meta"):
        model = family.build(config)

    def size(module: nn.Module, prefix: str = "", ways: int = 1) -> int:
        """Bytes of one shard of a module's parameters."""
        named = module.named_parameters(prefix)
        rows = ((4 if family.keep_float32(name) else 2, -(-len(x) // ways), x.shape[1:]) for name, x in named)
        return sum(element * count * math.prod(row) for element, count, row in rows)

    names = {block: name for name, block in model.named_modules()}
    shards = [size(block, names[block], ranks) for block in model.blocks]
    outside = size(model) - sum(size(block, names[block]) for block in model.blocks)
    gathered = 3 * ranks * max(shards) if ranks > 1 else 0
    return WeightBytes(outside + sum(shards), gathered, (ranks - 1) * sum(shards))
