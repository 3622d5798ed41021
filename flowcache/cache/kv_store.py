"""Keys and values of a window's chunks, per layer and guidance branch."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from flowcache.models.base import Attend

# select(queries, keys, budget) -> indices [budget, heads] of the clean tokens to keep
Select = Callable[[Tensor, Tensor, int], Tensor]


class KVStore:
    """Preallocated [layers, branches, capacity * tokens, heads, head_dim]; keys are kept past RoPE.

    Chunks lie side by side, so that what a chunk sees is a slice and never a copy. With a `budget` (in chunks)
    the finished chunks at the front are cut down to so many tokens as soon as there are more, what follows moves
    up, and `capacity` (in chunks) need not cover the window.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        tokens: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        budget: int | None = None,
        select: Select | None = None,
    ):
        """shape: (layers, branches, heads, head_dim); tokens: of one chunk."""
        layers, self.branches, heads, head_dim = shape
        size = layers, self.branches, capacity * tokens, heads, head_dim
        self.keys, self.values = (torch.empty(size, dtype=dtype, device=device) for _ in range(2))
        self.tokens, self.budget, self.select = tokens, budget, select
        self.dropped = [0] * self.branches  # tokens that the front has lost

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def view(self, branch: int, chunk: int, first: int = 0, finished: int = 0) -> tuple[Attend, int]:
        """For one forward of `chunk`: attention over it and what lies before, which also writes its K/V.

        first: chunks before this one are not seen. finished: so many chunks at the front are clean, and are cut
        down to the budget on the way. Returns also how many tokens are seen.
        """
        clean = finished * self.tokens - self.dropped[branch]
        surplus = 0 if self.budget is None else max(clean - self.budget * self.tokens, 0)
        self.dropped[branch] += surplus
        begin = chunk * self.tokens - self.dropped[branch]
        own = slice(begin, begin + self.tokens)
        seen = slice(max(first * self.tokens - self.dropped[branch], 0), own.stop)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.keys[layer, branch], self.values[layer, branch]
            if surplus:
                chosen = self.select(q[0], keys[:clean], clean - surplus)
                for memory in (keys, values):
                    cut(memory, clean, chosen)
            keys[own], values[own] = k[0], v[0]
            heads_first = (x.transpose(-3, -2) for x in (q, keys[None, seen], values[None, seen]))
            return scaled_dot_product_attention(*heads_first).transpose(1, 2)

        return attend, seen.stop - seen.start


def cut(memory: Tensor, clean: int, chosen: Tensor) -> None:
    """Of the first `clean` tokens keep those `chosen` [kept, heads]; what follows moves up. In place."""
    kept = memory[:clean].gather(0, chosen[..., None].expand(-1, -1, memory.shape[-1]))
    rest = memory[clean:].clone()
    memory[: len(kept)] = kept
    memory[len(kept) : len(kept) + len(rest)] = rest
