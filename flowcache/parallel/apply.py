"""Spread a model over the ranks of a gang, from outside: the model and the sampler know nothing of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flowcache.models.base import Attend, Conditioning, DropsCaptions, Grid, KVSharding, VideoModel
from flowcache.parallel.kv_sharding import HeadSharded, TokenSharded
from flowcache.parallel.mesh import GangMesh, shares
from flowcache.parallel.ulysses import ulysses


def shard(model: VideoModel, ranks: GangMesh) -> VideoModel:
    """The same model, run by all ranks together: each has a part of every chunk's tokens, and a part of the heads.

    Every rank is given the same latents and gets the whole velocity. ValueError where there are more ranks than
    a chunk has tokens (at its first use).
    """
    return model if ranks.all.size == 1 else ShardedModel(model, ranks)


@dataclass(frozen=True)
class RopeShard:
    """This rank's part of a chunk's RoPE, and how many tokens each rank has."""

    angles: Any
    tokens: list[int]


class ShardedModel:
    """`VideoModel` over a gang: tokens are this rank's shard between `embed` and `project`, `heads` are its own."""

    def __init__(self, model: VideoModel, ranks: GangMesh):
        self.model, self.ranks = model, ranks
        ways = ranks.heads.size
        self.layers, self.head_dim = model.layers, model.head_dim
        self.heads, self.kv_heads = model.heads // ways, model.kv_heads // ways
        self.dtype, self.device = model.dtype, model.device
        # of sharded weights: FSDP notes every forward, for a backward pass that never comes
        self._forget = getattr(model, "reset_iter_state", None)

    @property
    def null_caption(self) -> Tensor | None:
        return self.model.null_caption

    @property
    def timed_signal(self) -> bool:
        return self.model.timed_signal

    def tokens(self, total: int) -> list[int]:
        """How many of a chunk's tokens each rank has."""
        size = self.ranks.all.size
        if total < size:
            raise ValueError(f"{size} ranks can't share a chunk of {total} tokens; accepted: 1 to {total} ranks")
        return shares(total, size)

    def own(self, total: int) -> slice:
        """This rank's part of a chunk's tokens."""
        tokens, rank = self.tokens(total), self.ranks.all.rank
        return slice(sum(tokens[:rank]), sum(tokens[: rank + 1]))

    def kv_sharding(self) -> KVSharding:
        """How the ranks keep K/V together."""
        kind = TokenSharded if self.ranks.history.size > 1 else HeadSharded
        return kind(self.ranks, self.device)

    def grid(self, latents: Tensor, first_frame: int = 0) -> Grid:
        return self.model.grid(latents, first_frame)

    def embed(self, latents: Tensor) -> Tensor:
        tokens = self.model.embed(latents)
        return tokens[:, self.own(tokens.shape[1])].clone()  # a view would keep all ranks' tokens where reuse keeps it

    def condition(self, timesteps: Tensor, grid: Grid, fps: int, distill: float | None = None) -> Conditioning:
        return self.model.condition(timesteps, grid, fps, distill)

    def text(self, embeddings: Tensor | None) -> Any:
        return self.model.text(embeddings)

    def dropped(self, embeddings: Tensor) -> Any:
        if not isinstance(self.model, DropsCaptions):
            raise TypeError("this model can't see anything in place of a dropped caption")
        return self.model.dropped(embeddings)

    def rope(self, grid: Grid) -> RopeShard:
        return RopeShard(self.model.rope(grid)[self.own(grid.tokens)], self.tokens(grid.tokens))

    def transform(
        self,
        tokens: Tensor,
        conditioning: Conditioning,
        texts: Sequence[Any],
        ropes: Sequence[RopeShard],
        attend: Attend,
    ) -> Tensor:
        frames, total = conditioning.blocks.shape[1], sum(ropes[0].tokens)
        if frames > 1:
            of_token = torch.arange(frames, device=tokens.device).repeat_interleave(total // frames)
            conditioning = replace(conditioning, frame_of_token=of_token[self.own(total)])
        ways = self.ranks.heads.size
        first = self.ranks.history.rank * ways
        sharded = ulysses(attend, self.ranks.heads, ropes[0].tokens[first : first + ways])
        out = self.model.transform(tokens, conditioning, texts, [rope.angles for rope in ropes], sharded)
        if self._forget:
            self._forget()
        return out

    def project(self, tokens: Tensor, conditioning: Conditioning, grid: Grid) -> Tensor:
        return self.model.project(self.whole(tokens, grid.tokens), conditioning, grid)

    def signal(self, conditioning: Conditioning, tokens: Tensor | None, grid: Grid) -> Tensor:
        """That of this rank's tokens; `KVSharding.total` brings the ranks together."""
        return self.model.signal(conditioning, tokens, grid)

    def whole(self, tokens: Tensor, total: int) -> Tensor:
        """All ranks' shards [B, share, D] as [B, total, D]."""
        return self.ranks.all.all_gather(tokens, 1, self.tokens(total))
