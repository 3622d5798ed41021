"""Spread a model over the ranks of a mesh, from outside: the model and the sampler know nothing of it."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from flowcache.models.base import Attend, Conditioning, Grid, VideoModel
from flowcache.parallel.mesh import Mesh
from flowcache.parallel.ulysses import ulysses


def degrees(heads: int, tokens: int) -> list[int]:
    """How many ranks can share a model with that many K/V heads, and chunks of that many tokens."""
    return [n for n in range(1, heads + 1) if heads % n == 0 and tokens % n == 0]


def shard(model: VideoModel, mesh: Mesh) -> VideoModel:
    """The same model, run by all ranks together: each has a part of every chunk's tokens, and a part of the heads.

    Every rank is given the same latents and gets the whole velocity. ValueError where the heads (here) or a
    chunk's tokens (at its first use) can't be split evenly.
    """
    return model if mesh.size == 1 else ShardedModel(model, mesh)


class ShardedModel:
    """`VideoModel` over a mesh: tokens are this rank's shard between `embed` and `project`, `heads` are its own."""

    def __init__(self, model: VideoModel, mesh: Mesh):
        if model.kv_heads % mesh.size:
            works = degrees(model.kv_heads, model.kv_heads)
            raise ValueError(
                f"{mesh.size} ranks can't share {model.kv_heads} attention heads; working degrees: {works}"
            )
        self.model, self.mesh = model, mesh
        self.layers, self.head_dim = model.layers, model.head_dim
        self.heads, self.kv_heads = model.heads // mesh.size, model.kv_heads // mesh.size
        self.dtype, self.device = model.dtype, model.device

    @property
    def null_caption(self) -> Tensor:
        return self.model.null_caption

    def own(self, tokens: int) -> slice:
        """This rank's part of a chunk's tokens."""
        if tokens % self.mesh.size:
            works = degrees(self.model.kv_heads, tokens)
            raise ValueError(f"{self.mesh.size} ranks can't share a chunk of {tokens} tokens; working degrees: {works}")
        share = tokens // self.mesh.size
        return slice(self.mesh.rank * share, (self.mesh.rank + 1) * share)

    def grid(self, latents: Tensor, first_frame: int = 0) -> Grid:
        return self.model.grid(latents, first_frame)

    def embed(self, latents: Tensor) -> Tensor:
        tokens = self.model.embed(latents)
        return tokens[:, self.own(tokens.shape[1])]

    def condition(self, timesteps: Tensor, grid: Grid, fps: int, distill: float | None = None) -> Conditioning:
        return self.model.condition(timesteps, grid, fps, distill)

    def text(self, embeddings: Tensor | None) -> Any:
        return self.model.text(embeddings)

    def rope(self, grid: Grid) -> Tensor:
        return self.model.rope(grid)[self.own(grid.tokens)]

    def transform(self, tokens: Tensor, conditioning: Conditioning, text: Any, rope: Tensor, attend: Attend) -> Tensor:
        if conditioning.frame_of_token is not None:
            of_token = conditioning.frame_of_token
            conditioning = replace(conditioning, frame_of_token=of_token[self.own(len(of_token))])
        return self.model.transform(tokens, conditioning, text, rope, ulysses(attend, self.mesh))

    def project(self, tokens: Tensor, conditioning: Conditioning, grid: Grid) -> Tensor:
        return self.model.project(self.whole(tokens), conditioning, grid)

    def signal(self, conditioning: Conditioning, tokens: Tensor | None) -> Tensor:
        """That of all ranks' tokens, so that every rank decides alike."""
        return self.model.signal(conditioning, None if tokens is None else self.whole(tokens))

    def whole(self, tokens: Tensor) -> Tensor:
        """All ranks' shards [B, S / N, D] as [B, S, D]."""
        return self.mesh.gather(tokens).transpose(0, 1).flatten(1, 2)
