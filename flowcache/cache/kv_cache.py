"""Keys and values of a window's chunks, per layer and guidance branch."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from flowcache.cache.kv_buffer import MakeBuffer, PlainBuffer
from flowcache.cache.kv_select import latest
from flowcache.models.attention import attention
from flowcache.models.base import Attend, KVSharding, Select


class Unsharded:
    """Implements `models.base.KVSharding` for K/V that are kept in one place."""

    def share(self, tokens: int) -> int:
        return tokens

    def attention(self, q: Tensor, k: Tensor, v: Tensor, tokens: int) -> Tensor:
        return attention(q, k, v)

    def keep(self, select: Select, q: Tensor, k: Tensor, v: Tensor, kept: int, tokens: int) -> list[Tensor]:
        chosen = select(q, k, kept)[..., None]
        return [x.gather(0, chosen.expand(-1, -1, x.shape[-1])) for x in (k, v)]

    def total(self, values: Tensor) -> Tensor:
        return values

    def agree(self, chunk: int, decisions: Sequence[str]) -> None:
        """Alone there is nobody to disagree with."""


class KVStore:
    """A buffer of [layers, branches, capacity * tokens, heads, head_dim]; keys are kept past RoPE.

    Chunks lie side by side, so that what a chunk sees is a slice and never a copy. With a `budget` (in chunks)
    the finished chunks at the front are cut down to so many tokens as soon as there are more, what follows moves
    up, and `capacity` (in chunks) need not cover the window. `late`: cuts may ask by the queries of the forward before.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        tokens: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        budget: int | None = None,
        select: Select = latest,
        sharding: KVSharding | None = None,
        buffer: MakeBuffer = PlainBuffer,
        late: bool = False,
    ):
        """shape: (layers, branches, kv_heads, head_dim); tokens: of one chunk, on all ranks together.

        buffer: how K/V lie in memory.
        """
        layers, self.branches, heads, head_dim = shape
        self.sharding, self.chunk_tokens = sharding or Unsharded(), tokens
        self.tokens = self.sharding.share(tokens)
        self.buffer = buffer((layers, self.branches, capacity * self.tokens, heads, head_dim), dtype, device)
        self.budget, self.select, self.late = budget, select, late
        self.queries: dict[tuple[int, int], Tensor] = {}  # of the last forward, by layer and branch, where late
        self.dropped = [0] * self.branches  # tokens that the front has lost

    @property
    def bytes(self) -> int:
        return self.buffer.nbytes

    def view(
        self, branch: int | range, chunk: int, first: int = 0, finished: int = 0, late: bool = False
    ) -> tuple[Attend, int]:
        """For one forward of `chunk`: attention over it and what lies before, which also writes its K/V.

        branch: whose K/V; a range of them where a batch holds one row for each.
        first: chunks before this one are not seen. finished: so many chunks at the front are clean, and are cut
        down to the budget on the way, by what this forward's queries ask for; `late`: by what those of the forward
        before it did. Returns also how many tokens are seen. ValueError for branches that are not cut alike so far.
        """
        rows = range(branch, branch + 1) if isinstance(branch, int) else branch
        if len({self.dropped[row] for row in rows}) != 1:
            raise ValueError(f"branches {list(rows)} can't be viewed together: they have lost different tokens")
        surplus = self._surplus(finished, self.dropped[rows[0]])
        dropped = surplus.stop
        for row in rows:
            self.dropped[row] = dropped
        own = slice(chunk * self.tokens - dropped, (chunk + 1) * self.tokens - dropped)
        seen = slice(max(first * self.tokens - dropped, 0), own.stop)
        batch = slice(rows.start, rows.stop)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            asked = [self.queries[layer, row] for row in rows] if late and surplus else q
            self._cut(layer, rows, asked, finished, surplus)
            if self.late:
                self.queries.update(((layer, row), own_q) for row, own_q in zip(rows, q, strict=True))
            self.buffer.write(layer, batch, own, k, v)
            return self.sharding.attention(q, *self.buffer.read(layer, batch, seen), self.chunk_tokens)

        return attend, (seen.stop - seen.start) // self.tokens * self.chunk_tokens

    def _surplus(self, finished: int, dropped: int) -> range:
        """Tokens lost so far, and after so many finished chunks are cut down to the budget."""
        clean = finished * self.tokens - dropped
        return range(dropped, dropped + (0 if self.budget is None else max(clean - self.budget * self.tokens, 0)))

    def _cut(self, layer: int, rows: range, queries: Iterable[Tensor], finished: int, surplus: range) -> None:
        """Each branch keeps what its own queries [branches, tokens, heads, head_dim] ask for."""
        clean = finished * self.tokens - surplus.start
        for row, own in zip(rows, queries, strict=True) if surplus else ():
            keys, values = self.buffer.read(layer, slice(row, row + 1), slice(0, clean))
            kept = self.sharding.keep(self.select, own, keys[0], values[0], clean - len(surplus), self.chunk_tokens)
            self.buffer.move(layer, row, clean, *kept)
