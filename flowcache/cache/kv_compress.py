"""Which tokens of the clean history to keep (FlowCache, arXiv 2602.10825): important ones, and no near-copies.

Pure functions of queries [Q, heads, head_dim] and clean keys [L, kv_heads, head_dim]; nothing here is [L, L].
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

QUERIES_AT_ONCE = 256  # bounds the logits that exist at a time: memory grows with the keys alone


@dataclass(frozen=True)
class Compression:
    """mix: weight of importance against redundancy; kernel: width of the pooling over neighbours.

    group: tokens that are kept or dropped together (1: each for itself). by: what these are; a frame's or chunk's
    number of tokens is known only where the video's size is, see `grouped`.
    """

    mix: float = 0.07
    kernel: int = 7
    group: int = 1
    by: Literal["token", "frame", "chunk"] = "token"

    def grouped(self, frame: int, chunk: int) -> "Compression":
        """With the group that `by` stands for, where a frame and a chunk have so many tokens."""
        return self if self.by == "token" else replace(self, group={"frame": frame, "chunk": chunk}[self.by])

    def select(self, queries: Tensor, keys: Tensor, budget: int) -> Tensor:
        """Indices [budget, kv_heads] of the tokens to keep, best first, each head for itself."""
        return top(self.score(queries, keys), budget, self.group)

    def score(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[kv_heads, L]: higher is more worth keeping."""
        pooled = F.max_pool1d(importance(queries, keys), self.kernel, stride=1, padding=self.kernel // 2)
        return self.mix * pooled - (1 - self.mix) * redundancy(keys)


def importance(queries: Tensor, keys: Tensor) -> Tensor:
    """[kv_heads, L]: attention that each key gets, averaged over the queries.

    Query heads that share a key head are merged by their highest logit.
    """
    grouped, keys = queries.float().unflatten(1, (keys.shape[1], -1)), keys.float()
    total = keys.new_zeros(keys.shape[1], len(keys))
    for some in grouped.split(QUERIES_AT_ONCE):
        logits = torch.einsum("qhgd,khd->hgqk", some, keys) / keys.shape[-1] ** 0.5
        total += logits.amax(1).softmax(-1).sum(1)
    return total / len(queries)


def redundancy(keys: Tensor) -> Tensor:
    """[kv_heads, L]: softmax of each key's mean cosine to all others.

    The cosines of key n sum up to k_n . sum(k), so they are never formed one by one.
    """
    unit = F.normalize(keys.float(), dim=-1).transpose(0, 1)
    others = (unit * unit.sum(1, keepdim=True)).sum(-1) - 1
    return (others / len(keys)).softmax(-1)


def top(score: Tensor, budget: int, group: int = 1) -> Tensor:
    """Indices [budget, kv_heads] of the highest scores [kv_heads, L], whole groups by their mean, best first."""
    best = score.unflatten(1, (-1, group)).mean(-1).topk(budget // group, dim=-1).indices.T
    tokens = best[:, None] * group + torch.arange(group, device=score.device)[None, :, None]
    return tokens.flatten(0, 1)


@dataclass(frozen=True)
class Sink:
    """The first chunks and the latest ones, what lies between is forgotten (arXiv 2309.17453)."""

    first: int
    recent: int

    def select(self, queries: Tensor, keys: Tensor, budget: int) -> Tensor:
        """Indices [budget, kv_heads]; budget: tokens of first + recent chunks."""
        sink = budget * self.first // (self.first + self.recent)
        kept = [torch.arange(sink), torch.arange(len(keys) - budget + sink, len(keys))]
        return torch.cat(kept).to(keys.device)[:, None].expand(-1, keys.shape[1])


def latest(queries: Tensor, keys: Tensor, budget: int) -> Tensor:
    """Indices [budget, kv_heads] of the last tokens: forgetting without scores."""
    return torch.arange(len(keys) - budget, len(keys), device=keys.device)[:, None].expand(-1, keys.shape[1])
