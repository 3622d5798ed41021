"""Which tokens of the clean history to keep (FlowCache, arXiv 2602.10825): important ones, and no near-copies.

Pure functions of queries [Q, heads, head_dim] and clean keys [L, kv_heads, head_dim]; nothing here is [L, L].
Keys may lie in several places, each of which scores its own: what must be known of the others comes from `Local`.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from flowcache.models.log_sum_exp import kernel, shared_out

Unit = Literal["token", "frame", "chunk"]
Weighting = Literal["even", "hard_code", "exponential", "polynomial", "upper_convex_polynomial", "gaussian"]
EVERY_QUERY = 2048  # of more than so many two in five are asked: their choice is nearly the same
GOLDEN = (5**0.5 - 1) / 2  # its multiples are spread evenly over any width
ASKED = 1024  # or so many, where query heads share key heads, whose scores take ten times as long
QUERIES_AT_ONCE = 256  # bounds the logits that exist at a time: memory grows with the keys alone


class Local:
    """Where the keys to choose from lie: all here. What is asked of it is the same in every place, and in one order."""

    count = 1  # of places

    def tokens(self, own: int) -> int:
        """How long the whole history is, where `own` tokens of it are here."""
        return own

    def queries(self, own: Tensor, last: int | None) -> Tensor:
        """The last of all places' queries, in their order; None: all of them."""
        return own if last is None else own[-last:]

    def parts(self, value: Tensor) -> Tensor:
        """[places, ...]: the value of every place."""
        return value[None]

    def whole(self, score: Tensor) -> Tensor:
        """[kv_heads, L] in the history's order, out of every place's [kv_heads, own]."""
        return score


LOCAL = Local()


@dataclass(frozen=True)
class Compression:
    """mix: weight of importance against redundancy; kernel: width of the pooling over neighbours.

    group: tokens that are kept or dropped together (1: each for itself). by: what these are; a frame's or chunk's
    number of tokens is known only where the video's size is, see `grouped`. asked: how many queries count, the last
    ones; None: all of the chunk. queries: what these are ("token": 50 of them). weighting: of the tokens' scores by
    their age, where tokens are kept for themselves, see `by_age`; chunk: tokens of one.
    """

    mix: float = 0.07
    kernel: int = 7
    group: int = 1
    by: Unit = "token"
    asked: int | None = None
    queries: Unit = "chunk"
    weighting: Weighting = "even"
    power: float = 3.0
    chunk: int = 0

    def grouped(self, frame: int, chunk: int) -> "Compression":
        """With the numbers that `by` and `queries` stand for, where a frame and a chunk have so many tokens."""
        group, asked = {"token": 1, "frame": frame, "chunk": chunk}, {"token": 50, "frame": frame, "chunk": None}
        named = {} if self.by == "token" else {"group": group[self.by]}
        if self.queries != "chunk":
            named["asked"] = asked[self.queries]
        return replace(self, chunk=chunk, **named)

    def select(self, queries: Tensor, keys: Tensor, budget: int, places: Local = LOCAL) -> Tensor:
        """Indices [budget, kv_heads] of the tokens to keep, best first, each head for itself."""
        score = self.score(sampled(places.queries(queries, self.asked), shares(queries, keys)), keys, places)
        if self.group == 1 and self.weighting != "even":
            score = by_age(score - score.amin(-1, keepdim=True), self.weighting, self.power, self.chunk)
        return top(score, budget, self.group)

    def score(self, queries: Tensor, keys: Tensor, places: Local = LOCAL) -> Tensor:
        """[kv_heads, L]: higher is more worth keeping."""
        pooled = F.max_pool1d(importance(queries, keys, places), self.kernel, stride=1, padding=self.kernel // 2)
        return self.mix * pooled - (1 - self.mix) * redundancy(keys, places)


def shares(queries: Tensor, keys: Tensor) -> bool:
    """Whether query heads share key heads."""
    return queries.shape[1] != keys.shape[1]


def sampled(queries: Tensor, shared: bool) -> Tensor:
    """Those that are asked: evenly spaced, by no whole number, so that every row and column of a video is."""
    if len(queries) <= EVERY_QUERY:
        return queries
    return spread(queries, GOLDEN + (max(2, -(-len(queries) // ASKED)) if shared else 2))


def spread(queries: Tensor, stride: float) -> Tensor:
    """Those that are so far apart, half of that from the ends."""
    places = torch.arange(int(len(queries) / stride), dtype=torch.float64, device=queries.device)
    return queries[((places + 0.5) * stride).long()]


def by_age(score: Tensor, weighting: Weighting, power: float, chunk: int) -> Tensor:
    """Scores [kv_heads, L], 0 or more, the oldest token first, weighted as FlowCache's MAGI-1 code offers.

    The weights of all but "gaussian" grow towards the newest; "hard_code" lets the oldest chunk go first.
    """
    length = score.shape[-1]
    place = torch.arange(length, device=score.device)
    age = place / max(length - 1, 1)
    if weighting == "hard_code":
        return score - 1e6 * (place < chunk)
    if weighting == "upper_convex_polynomial":
        return score * 2 * (1 - (1 - age) ** power)
    if weighting == "polynomial":
        share = age**power
    elif weighting == "exponential":
        share = (1 - torch.exp(-2 * age)) / (1 - math.exp(-2))
    else:
        bell = torch.exp(-0.5 * (place / (length / 4)) ** 2)
        share = (bell - bell[-1]) / (1 - bell[-1])
    return score * (0.1 + 0.9 * share)


def importance(queries: Tensor, keys: Tensor, places: Local = LOCAL) -> Tensor:
    """[kv_heads, L]: attention that each key gets, averaged over the queries.

    Query heads that share a key head are merged by their highest logit.
    """
    if shares(queries, keys):
        return by_logits(queries, keys, places)
    q, k = (x.transpose(0, 1).contiguous() for x in (queries, keys))
    totals = places.parts(kernel(q[None], k[None], k[None])[1][0]).double().logsumexp(0)
    return places.whole((shared_out(q, totals, k) / len(queries)).float())


def by_logits(queries: Tensor, keys: Tensor, places: Local = LOCAL) -> Tensor:
    """`importance` for any heads: logits are formed, since no fused kernel takes the highest of several heads."""
    grouped, keys = queries.unflatten(1, (keys.shape[1], -1)), keys.permute(1, 2, 0)
    total = torch.zeros(keys.shape[0], keys.shape[2], dtype=torch.float64, device=keys.device)
    for some in grouped.split(QUERIES_AT_ONCE):
        logits = products(some.permute(1, 2, 0, 3).flatten(1, 2), keys).unflatten(1, (-1, len(some))).amax(1)
        logits *= keys.shape[1] ** -0.5
        weights = logits.softmax(-1)
        shares = torch.ones_like(weights[..., 0])
        if places.count > 1:
            here = (logits.amax(-1) - weights.amax(-1).log()).double()  # their log-sum-exp
            shares = (here - places.parts(here).logsumexp(0)).exp().float()
        total += (shares[:, None] @ weights)[:, 0]
    return places.whole((total / len(queries)).float())


def products(rows: Tensor, columns: Tensor) -> Tensor:
    """[B, n, D] @ [B, D, m], summed up and given in fp32."""
    if rows.device.type == "cuda" and rows.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        return torch.bmm(rows, columns, out_dtype=torch.float32)  # exact in fp32, so neither need be widened
    return rows.float() @ columns.float()


def redundancy(keys: Tensor, places: Local = LOCAL) -> Tensor:
    """[kv_heads, L]: softmax of each key's mean cosine to all others.

    The cosines of key n sum up to k_n . sum(k), so they are never formed one by one.
    """
    unit = F.normalize(keys.float(), dim=-1).transpose(0, 1)
    every = places.parts(unit.sum(1, dtype=torch.float64)).sum(0).float()
    others = places.whole((unit * every[:, None]).sum(-1) - 1)
    return (others / others.shape[-1]).softmax(-1)


def top(score: Tensor, budget: int, group: int = 1) -> Tensor:
    """Indices [budget, kv_heads] of the highest scores [kv_heads, L], whole groups by their mean, best first.

    Of equals the oldest, on every rank.
    """
    ranked = score.unflatten(1, (-1, group)).mean(-1).sort(dim=-1, descending=True, stable=True).indices
    best = ranked[:, : budget // group].T
    tokens = best[:, None] * group + torch.arange(group, device=score.device)[None, :, None]
    return tokens.flatten(0, 1)


@dataclass(frozen=True)
class Sink:
    """The first chunks and the latest ones, what lies between is forgotten (arXiv 2309.17453)."""

    first: int
    recent: int

    def select(self, queries: Tensor, keys: Tensor, budget: int, places: Local = LOCAL) -> Tensor:
        """Indices [budget, kv_heads]; budget: tokens of first + recent chunks."""
        sink, length = budget * self.first // (self.first + self.recent), places.tokens(len(keys))
        kept = [torch.arange(sink), torch.arange(length - budget + sink, length)]
        return torch.cat(kept).to(keys.device)[:, None].expand(-1, keys.shape[1])


def latest(queries: Tensor, keys: Tensor, budget: int, places: Local = LOCAL) -> Tensor:
    """Indices [budget, kv_heads] of the last tokens: forgetting without scores."""
    length = places.tokens(len(keys))
    return torch.arange(length - budget, length, device=keys.device)[:, None].expand(-1, keys.shape[1])
