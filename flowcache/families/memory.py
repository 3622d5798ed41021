"""The memory that a model needs, by arithmetic (docs/models.md spells it out)."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from flowcache.families.base import Config
from flowcache.families.known import family, family_of
from flowcache.records import ModelSpec
from flowcache.sampling.executor import most_packed

GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes that one rank needs, in bfloat16."""

    weights: int
    keys_values: int  # at their most, all guidance branches
    residuals: int  # at their most: what reuse keeps, its signals too
    activations: int  # an estimate
    codec: int  # an estimate; whole frames are decoded by rank 0 alone
    gathered: int = 0  # blocks of sharded weights while they run

    @property
    def total(self) -> int:
        return self.weights + self.gathered + self.keys_values + self.residuals + self.activations + self.codec

    def __str__(self) -> str:
        gathered = {"gathered blocks": self.gathered} if self.gathered else {}
        rest = {"K/V": self.keys_values, "activations": self.activations + self.residuals, "VAE": self.codec}
        parts = {"weights": self.weights} | gathered | rest
        spelled = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
        return f"{self.total / GIB:.1f} GiB per rank ({spelled})"


def memory(spec: ModelSpec, config: Config, ranks: int, sharded: bool = False) -> Memory:
    """What each of `ranks` ranks needs at the model's default size, where a window keeps all K/V and reuses."""
    tokens, kept = spec.chunk_tokens(spec.width, spec.height), family(spec.family).kept(spec)
    keys_values = family_of(config).counts.kv_bytes(config, kept.kv_branches * kept.kv_chunks * tokens, 2) // ranks
    reused = reuse_bytes(config, tokens, ranks, kept.kv_branches, kept.chunks_in_flight)
    return rank_memory(spec, config, ranks, keys_values, reused, sharded)


def reuse_bytes(config: Config, tokens: int, ranks: int, kv_branches: int, chunks_in_flight: int, item: int = 2) -> int:
    """What reuse keeps on a rank for `chunks_in_flight` chunks of so many tokens; item: bytes of a number."""
    return family_of(config).counts.reuse_bytes(config, tokens, ranks, kv_branches, chunks_in_flight, item)


def rank_memory(
    spec: ModelSpec, config: Config, ranks: int, keys_values: int, residuals: int, sharded: bool = False
) -> Memory:
    """With so many bytes of K/V and residuals, at the spec's width and height; weights whole on each or `sharded`."""
    tokens, kept = spec.chunk_tokens(spec.width, spec.height), family(spec.family).kept(spec)
    together = min(most_packed(tokens), kept.kv_branches * kept.kv_chunks)  # chunks of a batch
    weights = weight_bytes(config, ranks if sharded else 1)
    return Memory(
        weights=weights.resident,
        keys_values=keys_values,
        residuals=residuals,
        activations=family_of(config).counts.working_bytes(config, together * math.ceil(tokens / ranks)),
        codec=codec_bytes(spec),
        gathered=weights.gathered,
    )


def codec_bytes(spec: ModelSpec, tile: int | None = None) -> int:
    """Of decoding frames of the spec's width and height; tile: side of the squares in which the Wan VAE does it."""
    return family(spec.family).codec_bytes(spec, tile)


@dataclass(frozen=True)
class WeightBytes:
    """Of one rank. gathered: at their most, beside those `resident`; sent: to other ranks, in each chunk's forward."""

    resident: int
    gathered: int = 0
    sent: int = 0


@cache
def weight_bytes(config: Config, ranks: int = 1) -> WeightBytes:
    """Of a transformer of this shape in bfloat16, but for what stays in float32; blocks sharded over `ranks` > 1.

    FSDP2 gives each rank the same number of a tensor's rows, padded. While a block runs, its tensors are there, and
    the buffers that it came in and the next one comes in.
    """
    owner = family_of(config)
    with torch.device("meta"):
        model = owner.build(config)

    def size(module: nn.Module, prefix: str = "", ways: int = 1) -> int:
        """Bytes of one shard of a module's parameters."""
        named = module.named_parameters(prefix)
        rows = ((4 if owner.keep_float32(name) else 2, -(-len(x) // ways), x.shape[1:]) for name, x in named)
        return sum(element * count * math.prod(row) for element, count, row in rows)

    names = {block: name for name, block in model.named_modules()}
    shards = [size(block, names[block], ranks) for block in model.blocks]
    outside = size(model) - sum(size(block, names[block]) for block in model.blocks)
    gathered = 3 * ranks * max(shards) if ranks > 1 else 0
    return WeightBytes(outside + sum(shards), gathered, (ranks - 1) * sum(shards))
