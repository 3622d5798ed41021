"""Ulysses sequence parallelism (arXiv 2309.14509): shards of tokens outside attention, shards of heads inside."""

import torch
from torch import Tensor

from flowcache.models.base import Attend
from flowcache.parallel.mesh import Mesh


def ulysses(attend: Attend, mesh: Mesh) -> Attend:
    """Wrap `attend`, which then sees all tokens of this rank's heads; the result is called with its shard of tokens."""

    def sharded(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # each rank's heads of all three side by side, since k and v may have fewer
        parts = torch.cat([x.unflatten(-2, (mesh.size, -1)) for x in (q, k, v)], dim=-2)
        own = heads_from_tokens(parts.flatten(-3, -2), mesh)
        q, k, v = own.split([x.shape[-2] // mesh.size for x in (q, k, v)], dim=-2)
        return tokens_from_heads(attend(layer, q, k, v), mesh)

    return sharded


def heads_from_tokens(x: Tensor, mesh: Mesh) -> Tensor:
    """[..., tokens / N, heads, head_dim] -> [..., tokens, heads / N, head_dim]."""
    parts = mesh.exchange(x.unflatten(-2, (mesh.size, -1)).movedim(-3, 0))
    return parts.movedim(0, -4).flatten(-4, -3)


def tokens_from_heads(x: Tensor, mesh: Mesh) -> Tensor:
    """[..., tokens, heads / N, head_dim] -> [..., tokens / N, heads, head_dim]."""
    parts = mesh.exchange(x.unflatten(-3, (mesh.size, -1)).movedim(-4, 0))
    return parts.movedim(0, -3).flatten(-3, -2)
