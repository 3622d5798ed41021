"""The memory that a model needs, by arithmetic (docs/models.md spells it out)."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from flowcache.families.base import Config
from flowcache.families.known import family, family_of
from flowcache.models.eight_bit import matrices
from flowcache.records import Dtype, ModelSpec, Precision
from flowcache.sampling.executor import most_packed

GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes that one rank needs."""

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


GPU = Precision()  # as without a word, on a GPU


def memory(
    spec: ModelSpec,
    config: Config,
    ranks: int,
    sharded: bool = False,
    precision: Precision = GPU,
    tile: int | None = None,
) -> Memory:
    """What each of `ranks` ranks needs at the model's default size, where a window keeps all K/V and reuses."""
    tokens, kept = spec.chunk_tokens(spec.width, spec.height), family(spec.family).kept(spec)
    seen, item = kept.kv_branches * kept.kv_chunks * tokens, precision.element
    keys_values = family_of(config).counts.kv_bytes(config, seen, item) // ranks
    reused = reuse_bytes(config, tokens, ranks, kept.kv_branches, kept.chunks_in_flight, item)
    return rank_memory(spec, config, ranks, keys_values, reused, sharded, precision, tile=tile)


def reuse_bytes(config: Config, tokens: int, ranks: int, kv_branches: int, chunks_in_flight: int, item: int) -> int:
    """What reuse keeps on a rank for `chunks_in_flight` chunks of so many tokens; item: bytes of a number."""
    return family_of(config).counts.reuse_bytes(config, tokens, ranks, kv_branches, chunks_in_flight, item)


def rank_memory(
    spec: ModelSpec,
    config: Config,
    ranks: int,
    keys_values: int,
    residuals: int,
    sharded: bool = False,
    precision: Precision = GPU,
    at_once: int | None = None,
    tile: int | None = None,
) -> Memory:
    """With so many bytes of K/V and residuals, at the spec's width, height and fps; weights whole on each or `sharded`.

    at_once: chunks that are forwarded as one; None: those of a batch. tile: see `codec_bytes`.
    """
    tokens, kept = spec.chunk_tokens(spec.width, spec.height), family(spec.family).kept(spec)
    together = at_once or min(most_packed(tokens), kept.kv_branches * kept.kv_chunks)
    own = weight_bytes(config, ranks if sharded else 1, precision)
    working = family_of(config).counts.working_bytes(config, together * math.ceil(tokens / ranks))
    return Memory(
        weights=own.resident,
        keys_values=keys_values,
        residuals=residuals,
        activations=working * precision.element // 2,
        codec=codec_bytes(spec, tile, precision.vae_dtype),
        gathered=own.gathered,
    )


def codec_bytes(spec: ModelSpec, tile: int | None = None, dtype: Dtype = "auto") -> int:
    """Of decoding frames of the spec's size and fps, weights included; tile, dtype: see `codecs.load_codec`."""
    return family(spec.family).codec_bytes(spec, tile, dtype)


@dataclass(frozen=True)
class WeightBytes:
    """Of one rank. gathered: at their most, beside those `resident`; sent: to other ranks, in each chunk's forward."""

    resident: int
    gathered: int = 0
    sent: int = 0


@cache
def weight_bytes(config: Config, ranks: int = 1, precision: Precision = GPU) -> WeightBytes:
    """Of a transformer of this shape, where some stay in float32 in any case; blocks sharded over `ranks` > 1.

    Of weights of 8 bits the largest matrix is there multiplied out, too: they are one by one.
    FSDP2 gives each rank the same number of a tensor's rows, padded. While a block runs, its tensors are there, and
    the buffers that it came in and the next one comes in.
    """
    owner = family_of(config)
    with torch.device("meta"):
        model = owner.build(config)

    eight, item = matrices(model) if precision.weights != "auto" else set(), precision.element

    def size(module: nn.Module, prefix: str = "", ways: int = 1) -> int:
        """Bytes of one shard of a module's parameters."""
        return sum(_bytes(x, 4 if owner.keep_float32(name) else item, name in eight, ways)
                   for name, x in module.named_parameters(prefix))  # fmt: skip

    names = {block: name for name, block in model.named_modules()}
    shards = [size(block, names[block], ranks) for block in model.blocks]
    outside = size(model) - sum(size(block, names[block]) for block in model.blocks)
    gathered = 3 * ranks * max(shards) if ranks > 1 else 0
    one = max((item * math.prod(x.shape) for name, x in model.named_parameters() if name in eight), default=0)
    return WeightBytes(outside + sum(shards) + one, gathered, (ranks - 1) * sum(shards))


def _bytes(parameter: Tensor, element: int, eight: bool, ways: int) -> int:
    """Of a shard. eight: in 8 bits, with a scale for each row."""
    row = math.prod(parameter.shape[1:])
    return -(-len(parameter) // ways) * (row + element if eight else element * row)
