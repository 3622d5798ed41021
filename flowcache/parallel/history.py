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

QUERIES_AT_ONCE = 256  # bounds the logits that exist at a time


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
    """Of this rank's queries [B, tokens[rank], heads, D] over the keys of all ranks; k, v [B, any, kv_heads, D]."""
    queries = mesh.gather(q, 1, tokens)
    part = torch.cat(partial(queries, k, v), dim=-1)  # [B, T, heads, D + 1]
    sent = [rows.flatten() for rows in part.split(list(tokens), dim=1)]
    received = mesh.exchange(sent, [sent[mesh.rank].numel()] * mesh.size)
    parts = torch.stack([rows.view(len(q), tokens[mesh.rank], *part.shape[2:]) for rows in received])
    return merge(parts[..., :-1], parts[..., -1:]).to(q.dtype)


def partial(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention and its log-sum-exp [B, T, heads, 1], both fp32; -inf where there is no key."""
    grouped, k, v = q.float().unflatten(2, (k.shape[2], -1)), k.float(), v.float()
    outs, sums = [], []
    for some in grouped.split(QUERIES_AT_ONCE, dim=1):
        logits = torch.einsum("bqhgd,bkhd->bqhgk", some, k) / q.shape[-1] ** 0.5
        total = logits.logsumexp(-1, keepdim=True)
        outs.append(torch.einsum("bqhgk,bkhd->bqhgd", (logits - total).exp(), v).flatten(2, 3))
        sums.append(total.flatten(2, 3))
    return torch.cat(outs, dim=1), torch.cat(sums, dim=1)


def merge(outs: Tensor, sums: Tensor) -> Tensor:
    """Partial results [parts, ..., D] with their log-sum-exp [parts, ..., 1], as one softmax over all keys."""
    return (outs * sums.softmax(0)).sum(0)
