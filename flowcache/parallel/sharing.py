"""Decoding by all ranks of a gang: items are dealt out, and results come together on the rank that shows them."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from flowcache.errors import FlowcacheError
from flowcache.models.base import Item
from flowcache.parallel.mesh import Mesh

SHOWS = 0  # the rank that gets the results


class Undelivered(FlowcacheError):
    """A rank waited in vain for the part of another."""


def open_sharing(timeout: timedelta) -> "Sharing":
    """Every rank of the default process group must call it. timeout: how long one rank waits for another.

    Has a group of its own, over CPU memory: decoding goes on beside denoising, in another thread, and what two
    threads send over one group would come in another order on each rank.
    """
    return Sharing(Mesh(dist.new_group(backend="gloo", timeout=timeout)))


@dataclass(frozen=True)
class Sharing:
    """Implements `models.base.Share` over a gloo process group."""

    mesh: Mesh

    def __call__(
        self, function: Callable[[Item], Tensor], items: Sequence[Item], shapes: Sequence[tuple[int, ...]]
    ) -> list[Tensor] | None:
        owners = deal([math.prod(shape) for shape in shapes], self.mesh.size)
        if self.mesh.rank != SHOWS:
            self._deliver({i: items[i] for i, owner in enumerate(owners) if owner == self.mesh.rank}, function)
            return None
        coming = {}  # received while own ones are computed
        for i, owner in enumerate(owners):
            if owner != SHOWS:
                with waiting_for(owner):
                    buffer = torch.empty(shapes[i])
                    coming[i] = dist.irecv(buffer, group=self.mesh.group, group_src=owner, tag=i), buffer
        results = [function(item) if owner == SHOWS else None for item, owner in zip(items, owners, strict=True)]
        device = results[owners.index(SHOWS)].device
        for i, (work, buffer) in coming.items():
            with waiting_for(owners[i]):
                work.wait()
            results[i] = buffer.to(device)
        return results

    def _deliver(self, items: dict[int, Item], function: Callable[[Item], Tensor]) -> None:
        """Each result leaves while the next one is computed."""
        leaving = []
        for i, item in items.items():
            part = function(item).cpu().contiguous()
            with waiting_for(SHOWS):
                leaving.append((dist.isend(part, group=self.mesh.group, group_dst=SHOWS, tag=i), part))
        with waiting_for(SHOWS):
            for work, _ in leaving:
                work.wait()


@contextmanager
def waiting_for(rank: int) -> Iterator[None]:
    """What gloo says when a rank is gone or too late names that rank."""
    try:
        yield
    except RuntimeError as error:
        raise Undelivered(f"waited in vain for rank {rank} to decode its part of a chunk: {error}") from error


def deal(costs: Sequence[int], ranks: int) -> list[int]:
    """The rank of each item: the dearest first, each to the rank that has least to do so far.

    Multiplying all costs by one factor changes nothing. The first rank always has one.
    """
    load, owners = [0] * ranks, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owners[i] = load.index(min(load))
        load[owners[i]] += costs[i]
    return owners
