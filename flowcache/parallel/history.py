"""A history whose tokens are spread over ranks: each attends to its own, and partial results are merged.

For ranks beyond the number of K/V heads. Softmax is split exactly by its log-sum-exp, as ring attention does
(arXiv 2310.01889), but queries travel instead of keys: they are one chunk's, the keys are many chunks'.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from flowcache.cache.kv_store import Whole
from flowcache.models.base import Select
from flowcache.parallel.agreement import check_agreement
from flowcache.parallel.mesh import Mesh, Ranks, shares
from flowcache.parallel.partial import merge, partial


class HeadHistory(Whole):
    """Implements `models.base.History` where each rank keeps all tokens, of its own heads."""

    def __init__(self, ranks: Ranks, device: torch.device):
        self.ranks, self.device = ranks, device

    def total(self, values: Tensor) -> Tensor:
        return self.ranks.all.sum(values)

    def agree(self, chunk: int, decisions: Sequence[str]) -> None:
        check_agreement(self.ranks.all, chunk, decisions, self.device)


class SpreadHistory(HeadHistory):
    """Implements `models.base.History`: of every chunk's tokens each rank keeps a run."""

    def __init__(self, ranks: Ranks, device: torch.device):
        super().__init__(ranks, device)
        self.mesh = ranks.history

    def runs(self, tokens: int) -> list[int]:
        """How many of a chunk's tokens each rank keeps."""
        ways, each = self.ranks.heads.size, shares(tokens, self.ranks.all.size)
        return [sum(each[first : first + ways]) for first in range(0, len(each), ways)]

    def share(self, tokens: int) -> int:
        return self.runs(tokens)[self.mesh.rank]

    def attention(self, q: Tensor, k: Tensor, v: Tensor, tokens: int) -> Tensor:
        return spread_attention(q, k, v, self.mesh, self.runs(tokens))

    def keep(self, select: Select, q: Tensor, k: Tensor, v: Tensor, kept: int, tokens: int) -> list[Tensor]:
        """Chosen among the tokens of all ranks, which are brought together for it: once for each finished chunk.

        What is kept is laid out as chunks again, so that every rank has its run of each.
        """
        runs, rank = self.runs(tokens), self.mesh.rank
        own, before = runs[rank], sum(runs[:rank])
        queries = self.mesh.gather(q, 0, runs)
        keys, values = (self.mesh.gather(x.unflatten(0, (-1, own)), 1, runs).flatten(0, 1) for x in (k, v))
        chosen = select(queries, keys, kept // own * tokens)
        mine = chosen.unflatten(0, (-1, tokens))[:, before : before + own].flatten(0, 1)
        return [x.gather(0, mine[..., None].expand(-1, -1, x.shape[-1])) for x in (keys, values)]


def spread_attention(q: Tensor, k: Tensor, v: Tensor, mesh: Mesh, tokens: Sequence[int]) -> Tensor:
    """Of this rank's queries [B, tokens[rank], heads, D] over the keys of all ranks; k, v [B, any, kv_heads, D].

    Partial results travel in q's dtype, as the kernel gives them, with their log-sum-exp in fp32: as bytes.
    """
    out, total = partial(mesh.gather(q, 1, tokens), k, v)
    rows = zip(total.float().split(list(tokens), dim=1), out.split(list(tokens), dim=1), strict=True)
    sent = [torch.cat([x.flatten().view(torch.uint8) for x in pair]) for pair in rows]
    received = torch.stack(mesh.exchange(sent, [sent[mesh.rank].numel()] * mesh.size))
    totals, outs = received.split([4 * q.shape[:-1].numel(), q.nbytes], dim=1)
    totals, outs = totals.contiguous().view(torch.float32), outs.contiguous().view(q.dtype)
    return merge(outs.view(-1, *q.shape), totals.view(-1, *q.shape[:-1])).to(q.dtype)
