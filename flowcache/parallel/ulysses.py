"""Ulysses sequence parallelism (arXiv 2309.14509): shards of tokens outside attention, shards of heads inside."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flowcache.models.base import Attend
from flowcache.parallel.mesh import Mesh


def ulysses(attend: Attend, mesh: Mesh, tokens: Sequence[int]) -> Attend:
    """Wrap `attend`, which then sees all tokens of this rank's heads; the result is called with its shard of tokens.

    tokens: how many each rank of the mesh has.
    """

    def sharded(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return tokens_from_heads(attend(layer, *heads_from_tokens([q, k, v], mesh, tokens)), mesh, tokens)

    return sharded


def heads_from_tokens(tensors: Sequence[Tensor], mesh: Mesh, tokens: Sequence[int]) -> list[Tensor]:
    """Each [B, tokens[rank], n, D] -> [B, sum(tokens), n / N, D]; n may differ. One message to every rank."""
    shapes = [(len(x), x.shape[2] // mesh.size, x.shape[3]) for x in tensors]
    split = [x.unflatten(2, (mesh.size, -1)).unbind(2) for x in tensors]
    parts = [torch.cat([heads[rank].flatten() for heads in split]) for rank in range(mesh.size)]
    widths = [batch * heads * dim for batch, heads, dim in shapes]
    received = mesh.all_to_all(parts, [count * sum(widths) for count in tokens])
    pieces = [part.split([count * width for width in widths]) for part, count in zip(received, tokens, strict=True)]
    return [
        torch.cat([piece[i].view(shape[0], -1, *shape[1:]) for piece in pieces], dim=1)
        for i, shape in enumerate(shapes)
    ]


def tokens_from_heads(x: Tensor, mesh: Mesh, tokens: Sequence[int]) -> Tensor:
    """[B, sum(tokens), n / N, D] -> [B, tokens[rank], n, D]."""
    parts = [part.flatten() for part in x.split(list(tokens), dim=1)]
    received = mesh.all_to_all(parts, [parts[mesh.rank].numel()] * mesh.size)
    return torch.cat([part.view(len(x), tokens[mesh.rank], *x.shape[2:]) for part in received], dim=2)
