"""The ranks that run one model together."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from flowcache.errors import FlowcacheError, first_line
from flowcache.models.exhausted import ran_out


class PeerLost(FlowcacheError):
    """An exchange between ranks failed or took too long: one of them is gone, or hangs."""


@contextmanager
def exchanging(
    failed: str = "an exchange with the other ranks failed", kind: type[PeerLost] = PeerLost
) -> Iterator[None]:
    """What torch raises in the block becomes an error of that kind, which says what failed.

    NCCL only begins an exchange: that a peer is lost shows as an error of CUDA where the result is read, so that what
    others sent is read in such a block, too.
    """
    try:
        yield
    except RuntimeError as error:  # gloo's errors have no type of their own
        if ran_out(error):  # here, and not with a peer
            raise
        raise kind(f"{failed}: {first_line(error)}") from error


@dataclass(frozen=True)
class Mesh:
    """A process group and what is exchanged over it; every rank must call the same methods in the same order.

    `group` None: this rank alone.
    """

    group: dist.ProcessGroup | None

    @property
    def rank(self) -> int:
        return dist.get_rank(self.group) if self.group else 0

    @property
    def size(self) -> int:
        return dist.get_world_size(self.group) if self.group else 1

    def all_to_all(self, parts: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """parts[j], flat, goes to rank j; of the result [j] is what rank j sent here, flat, sizes[j] numbers."""
        if not self.group:
            return list(parts)
        received = parts[0].new_empty(sum(sizes))
        sent = [part.numel() for part in parts]
        joined = torch.cat(list(parts))
        with exchanging():
            dist.all_to_all_single(received, joined, list(sizes), sent, group=self.group)
        return list(received.split(list(sizes)))

    def all_gather(self, part: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
        """Every rank's part, joined along `dim`, where rank j's is sizes[j] long; padded on the way to one length."""
        if not self.group:
            return part
        first = part.movedim(dim, 0)
        padded = F.pad(first, (0, 0) * (first.dim() - 1) + (0, max(sizes) - len(first))).contiguous()
        parts = padded.new_empty((self.size, *padded.shape))
        with exchanging():
            dist.all_gather(list(parts), padded, group=self.group)
        return torch.cat([p[:size] for p, size in zip(parts, sizes, strict=True)]).movedim(0, dim)

    def all_reduce(self, value: Tensor) -> Tensor:
        """The sum over all ranks, in float64: the same bits on every rank."""
        total = value.double()
        if self.group:
            total = total.clone()
            with exchanging():
                dist.all_reduce(total, group=self.group)
        return total


@dataclass(frozen=True)
class GangMesh:
    """A gang's two dimensions: rank = part * heads.size + head group.

    `heads`: ranks that have the same tokens of K/V, and different heads (Ulysses); neighbours in `all`.
    `history`: ranks that have the same heads of K/V, and different tokens of every chunk.
    """

    all: Mesh
    heads: Mesh
    history: Mesh


ALONE = GangMesh(Mesh(None), Mesh(None), Mesh(None))


def head_groups(ranks: int, kv_heads: int) -> int:
    """How many ways heads are split: as many as ranks and K/V heads allow. The rest splits K/V by tokens."""
    return math.gcd(ranks, kv_heads)


def arrange(group: dist.ProcessGroup, kv_heads: int, timeout: timedelta | None = None) -> GangMesh:
    """The gang's dimensions for a model with that many K/V heads. Every rank must call it, in the same order.

    timeout: of an exchange, which groups don't take over from `group`; None: torch's 10 to 30 minutes.
    """
    everyone = Mesh(group)
    ways, size = head_groups(everyone.size, kv_heads), everyone.size
    rows = [range(first, first + ways) for first in range(0, size, ways)]
    columns = [range(column, size, ways) for column in range(ways)]
    return GangMesh(everyone, _mine(rows, everyone, timeout), _mine(columns, everyone, timeout))


def _mine(groups: Sequence[range], everyone: Mesh, timeout: timedelta | None) -> Mesh:
    """Of groups that are all opened, the one with this rank."""
    if len(groups[0]) == 1:
        return Mesh(None)
    if len(groups) == 1:
        return everyone
    with exchanging():
        opened = [dist.new_group(list(members), timeout=timeout) for members in groups]
    return Mesh(own(opened))


def own(opened: Iterable[dist.ProcessGroup | int | None]) -> dist.ProcessGroup:
    """Of groups from `new_group`, which gives a number for others' groups, the one with this rank."""
    return next(group for group in opened if isinstance(group, dist.ProcessGroup))


def world() -> dist.ProcessGroup:
    """The default process group; ValueError where none is open."""
    if dist.group.WORLD is None:
        raise ValueError("no process group is open")
    return dist.group.WORLD


def shares(total: int, ranks: int) -> list[int]:
    """How many of `total` things each rank has: as even as can be."""
    return [total * (rank + 1) // ranks - total * rank // ranks for rank in range(ranks)]


def runs_of(total: int, ranks: int, ways: int) -> list[int]:
    """How many of a chunk's tokens each part of the K/V has: those of `ways` ranks, one of each head group."""
    each = shares(total, ranks)
    return [sum(each[first : first + ways]) for first in range(0, ranks, ways)]
