"""How keys and values lie in memory: what a `kv_cache.KVStore` reads and writes."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class KVBuffer(Protocol):
    """K/V of [layers, branches, tokens, kv_heads, head_dim]; a run of tokens is a slice of the third."""

    @property
    def nbytes(self) -> int:
        """Of everything that is kept here."""
        ...

    def write(self, layer: int, branches: slice, tokens: slice, keys: Tensor, values: Tensor) -> None:
        """keys, values: [branches, tokens, kv_heads, head_dim]."""
        ...

    def read(self, layer: int, branches: slice, tokens: slice) -> tuple[Tensor, Tensor]:
        """Keys and values as they were written, or close to it; to be used before the next write."""
        ...

    def move(self, layer: int, branch: int, clean: int, keys: Tensor, values: Tensor) -> None:
        """`keys` and `values` [kept, kv_heads, head_dim] take the place of the first `clean` tokens; the rest moves up.

        They were chosen among what `read` gave for these tokens.
        """
        ...


# (layers, branches, tokens, kv_heads, head_dim), the model's precision, where -> a buffer for them
MakeBuffer = Callable[[tuple[int, int, int, int, int], torch.dtype, torch.device], KVBuffer]


class PlainBuffer:
    """In the model's own precision; reading is a view, and copies nothing."""

    def __init__(self, size: tuple[int, int, int, int, int], dtype: torch.dtype, device: torch.device):
        self.keys, self.values = (torch.empty(size, dtype=dtype, device=device) for _ in range(2))

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def write(self, layer: int, branches: slice, tokens: slice, keys: Tensor, values: Tensor) -> None:
        self.keys[layer, branches, tokens], self.values[layer, branches, tokens] = keys, values

    def read(self, layer: int, branches: slice, tokens: slice) -> tuple[Tensor, Tensor]:
        return self.keys[layer, branches, tokens], self.values[layer, branches, tokens]

    def move(self, layer: int, branch: int, clean: int, keys: Tensor, values: Tensor) -> None:
        for memory, kept in ((self.keys[layer, branch], keys), (self.values[layer, branch], values)):
            rest = memory[clean:].clone()
            memory[: len(kept)] = kept
            memory[len(kept) : len(kept) + len(rest)] = rest
