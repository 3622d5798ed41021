"""Keys and values of a window's chunks, per layer and guidance branch."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from flowcache.models.base import Attend


@dataclass(frozen=True)
class KVStore:
    """Preallocated [layers, branches, chunks * tokens, heads, head_dim]; keys are kept past RoPE.

    Chunks lie side by side, so that what a chunk sees is a slice and never a copy.
    """

    keys: Tensor
    values: Tensor
    tokens: int  # of one chunk

    @classmethod
    def allocate(
        cls, layers: int, branches: int, chunks: int, tokens: int, heads: int, head_dim: int,
        dtype: torch.dtype, device: torch.device,
    ) -> "KVStore":
        shape = (layers, branches, chunks * tokens, heads, head_dim)
        return cls(*(torch.empty(shape, dtype=dtype, device=device) for _ in range(2)), tokens)

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def view(self, branch: int, chunk: int, first: int = 0) -> Attend:
        """Attention of `chunk` over chunks `first`..`chunk`, which also writes its K/V."""
        own = slice(chunk * self.tokens, (chunk + 1) * self.tokens)
        seen = slice(first * self.tokens, own.stop)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.keys[layer, branch], self.values[layer, branch]
            keys[own], values[own] = k[0], v[0]
            heads_first = (x.transpose(-3, -2) for x in (q, keys[None, seen], values[None, seen]))
            return scaled_dot_product_attention(*heads_first).transpose(1, 2)

        return attend
