"""K/V whose tokens are split over ranks: each attends to its own, and partial results are merged.

For ranks beyond the number of K/V heads. Softmax is split exactly by its log-sum-exp, as ring attention does
(arXiv 2310.01889), but queries travel instead of keys: they are one chunk's, the keys are many chunks'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from flowcache.cache.kv_cache import Unsharded
from flowcache.cache.kv_select import Local
from flowcache.models.base import Select
from flowcache.parallel.agreement import check_agreement
from flowcache.parallel.mesh import GangMesh, Mesh, exchanging, runs_of
from flowcache.parallel.partial import merge, partial


class HeadSharded(Unsharded):
    """Implements `models.base.KVSharding` where each rank keeps all tokens, of its own heads."""

    def __init__(self, ranks: GangMesh, device: torch.device):
        self.ranks, self.device = ranks, device

    def total(self, values: Tensor) -> Tensor:
        """On the CPU, where decisions are taken: on a GPU an exchange fails where its result is read."""
        with exchanging():
            return self.ranks.all.all_reduce(values).cpu()

    def agree(self, chunk: int, decisions: Sequence[str]) -> None:
        check_agreement(self.ranks.all, chunk, decisions, self.device)


class TokenSharded(HeadSharded):
    """Implements `models.base.KVSharding`: of every chunk's tokens each rank keeps a run."""

    def __init__(self, ranks: GangMesh, device: torch.device):
        super().__init__(ranks, device)
        self.mesh = ranks.history

    def runs(self, tokens: int) -> list[int]:
        """How many of a chunk's tokens each rank keeps."""
        return runs_of(tokens, self.ranks.all.size, self.ranks.heads.size)

    def share(self, tokens: int) -> int:
        return self.runs(tokens)[self.mesh.rank]

    def attention(self, q: Tensor, k: Tensor, v: Tensor, tokens: int) -> Tensor:
        return spread_attention(q, k, v, self.mesh, self.runs(tokens))

    def keep(self, select: Select, q: Tensor, k: Tensor, v: Tensor, kept: int, tokens: int) -> list[Tensor]:
        """Chosen among the tokens of all ranks by scores that each computes for its own, as if they lay in one place.

        What is kept is laid out as chunks again, so that every rank has its run of each.
        """
        runs = self.runs(tokens)
        chosen = select(q, k, kept // runs[self.mesh.rank] * tokens, Sharded(self.mesh, runs))
        return list(move(torch.cat([k, v], dim=-1), chosen, self.mesh, runs).chunk(2, dim=-1))


@dataclass(frozen=True)
class Sharded(Local):
    """Keys whose chunks lie in runs on the ranks of a mesh."""

    mesh: Mesh
    runs: list[int]

    @property
    def count(self) -> int:
        return self.mesh.size

    def tokens(self, own: int) -> int:
        return own // self.runs[self.mesh.rank] * sum(self.runs)

    def queries(self, own: Tensor, last: int | None) -> Tensor:
        before = sum(self.runs) - (last or sum(self.runs))  # queries that don't count
        ends = accumulate(self.runs)
        counts = [min(max(end - before, 0), run) for end, run in zip(ends, self.runs, strict=True)]
        return self.mesh.all_gather(own[len(own) - counts[self.mesh.rank] :], 0, counts)

    def parts(self, value: Tensor) -> Tensor:
        return self.mesh.all_gather(value[None], 0, [1] * self.mesh.size)

    def whole(self, score: Tensor) -> Tensor:
        chunks = score.unflatten(-1, (-1, self.runs[self.mesh.rank]))
        return self.mesh.all_gather(chunks, -1, self.runs).flatten(-2)


def move(rows: Tensor, chosen: Tensor, mesh: Mesh, runs: Sequence[int]) -> Tensor:
    """Rows [any, kv_heads, D] of all ranks become what `chosen` [kept, kv_heads] names, each rank's run of it.

    Only rows that change ranks are sent.
    """
    source, row = located(chosen, runs)
    target, place = (x[:, None].expand_as(chosen) for x in located(torch.arange(len(chosen), device=rows.device), runs))
    head = torch.arange(chosen.shape[1], device=rows.device).expand_as(chosen)
    sent = [(source == mesh.rank) & (target == rank) for rank in range(mesh.size)]
    received = [(source == rank) & (target == mesh.rank) for rank in range(mesh.size)]
    with exchanging():
        counts = torch.stack([each.sum() for each in received]).tolist()
    parts = mesh.all_to_all(
        [rows[row[each], head[each]].flatten() for each in sent], [n * rows.shape[2] for n in counts]
    )
    kept = rows.new_empty(len(chosen) // sum(runs) * runs[mesh.rank], *rows.shape[1:])
    for each, part in zip(received, parts, strict=True):
        kept[place[each], head[each]] = part.view(-1, rows.shape[2])
    return kept


def located(tokens: Tensor, runs: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which rank has each token of K/V whose chunks lie in `runs`, and in which of its rows."""
    sizes = torch.tensor(runs, device=tokens.device)
    chunk, within = tokens // sum(runs), tokens % sum(runs)
    rank = torch.bucketize(within.contiguous(), sizes.cumsum(0), right=True)
    return rank, chunk * sizes[rank] + within - (sizes.cumsum(0) - sizes)[rank]


def spread_attention(q: Tensor, k: Tensor, v: Tensor, mesh: Mesh, tokens: Sequence[int]) -> Tensor:
    """Of this rank's queries [B, tokens[rank], heads, D] over the keys of all ranks; k, v [B, any, kv_heads, D].

    Partial results travel in q's dtype, as the kernel gives them, with their log-sum-exp in fp32: as bytes.
    """
    out, total = partial(mesh.all_gather(q, 1, tokens), k, v)
    rows = zip(total.float().split(list(tokens), dim=1), out.split(list(tokens), dim=1), strict=True)
    sent = [torch.cat([as_bytes(x) for x in pair]) for pair in rows]
    received = torch.stack(mesh.all_to_all(sent, [sent[mesh.rank].numel()] * mesh.size))
    totals, outs = received.split([4 * q.shape[:-1].numel(), q.nbytes], dim=1)
    totals, outs = totals.contiguous().view(torch.float32), outs.contiguous().view(q.dtype)
    return merge(outs.view(-1, *q.shape), totals.view(-1, *q.shape[:-1])).to(q.dtype)


def as_bytes(x: Tensor) -> Tensor:
    """Flat; copied, since `contiguous` leaves a single number the stride that it had, and then it has no bytes."""
    return x.clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8)
