"""Which tokens of the clean history to keep (FlowCache, arXiv 2602.10825): important ones, and no near-copies.

Pure functions of queries [Q, heads, head_dim] and clean keys [L, kv_heads, head_dim]; nothing here is [L, L].
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Compression:
    """mix: weight of importance against redundancy; kernel: width of the pooling over neighbours.

    group: tokens that are kept or dropped together (1: each for itself; a frame's tokens, say).
    """

    mix: float = 0.07
    kernel: int = 7
    group: int = 1

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
    grouped = queries.float().unflatten(1, (keys.shape[1], -1))
    logits = torch.einsum("qhgd,khd->hgqk", grouped, keys.float()) / keys.shape[-1] ** 0.5
    return logits.amax(1).softmax(-1).mean(1)


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


def latest(queries: Tensor, keys: Tensor, budget: int) -> Tensor:
    """Indices [budget, kv_heads] of the last tokens: forgetting without scores."""
    return torch.arange(len(keys) - budget, len(keys), device=keys.device)[:, None].expand(-1, keys.shape[1])
