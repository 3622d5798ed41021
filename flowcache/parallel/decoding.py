"""Decoding by all ranks of a gang: jobs are dealt out, and results come together on the rank that shows them."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from flowcache.models.base import Job
from flowcache.parallel.mesh import Mesh, PeerLost, exchanging, own

SHOWS = 0  # the rank that gets the results


class Undelivered(PeerLost):
    """A rank waited in vain for the part of another."""


def open_sharing(timeout: timedelta) -> "Sharing":
    """Every rank of the default process group must call it. timeout: how long one rank waits for another.

    Has a group of its own, over CPU memory: decoding goes on beside denoising, in another thread, and what two
    threads send over one group would come in another order on each rank.
    """
    return Sharing(Mesh(own([dist.new_group(backend="gloo", timeout=timeout)])))


@dataclass(frozen=True)
class Sharing:
    """Implements `models.base.Share` over a gloo process group."""

    mesh: Mesh

    def __call__(self, jobs: Sequence[Job], shapes: Sequence[tuple[int, ...]]) -> list[Tensor] | None:
        owners = deal([math.prod(shape) for shape in shapes], self.mesh.size)
        if self.mesh.rank == SHOWS:
            return self._collect(jobs, shapes, owners)
        self._deliver(jobs, shapes, [i for i, owner in enumerate(owners) if owner == self.mesh.rank])
        return None

    def _collect(self, jobs: Sequence[Job], shapes: Sequence[tuple[int, ...]], owners: Sequence[int]) -> list[Tensor]:
        """What others send is received while own jobs are done."""
        coming = {}
        for i, owner in enumerate(owners):
            if owner != SHOWS:
                buffer = torch.empty(shapes[i])
                with waiting_for(owner):
                    coming[i] = dist.irecv(buffer, group=self.mesh.group, group_src=owner, tag=i), buffer
        own = {i: job() for i, job in enumerate(jobs) if owners[i] == SHOWS}
        device = own[owners.index(SHOWS)].device
        for i, (work, buffer) in coming.items():
            with waiting_for(owners[i]):
                work.wait()
            own[i] = buffer.to(device)
        return [own[i] for i in range(len(jobs))]

    def _deliver(self, jobs: Sequence[Job], shapes: Sequence[tuple[int, ...]], own: Sequence[int]) -> None:
        """Each result leaves while the next one is made."""
        leaving = []
        for i in own:
            result = jobs[i]().cpu().contiguous()
            if result.shape != shapes[i]:  # gloo would take it all the same
                raise ValueError(f"job {i} gave {list(result.shape)} instead of {list(shapes[i])}")
            with waiting_for(SHOWS):
                leaving.append((dist.isend(result, group=self.mesh.group, group_dst=SHOWS, tag=i), result))
        with waiting_for(SHOWS):
            for work, _ in leaving:
                work.wait()


def waiting_for(rank: int) -> AbstractContextManager[None]:
    """What gloo says of a rank that is gone or too late names it."""
    return exchanging(f"waited in vain for rank {rank} while a chunk was decoded", Undelivered)


def deal(costs: Sequence[int], ranks: int) -> list[int]:
    """The rank of each job: the dearest first, each to the rank that has least to do so far.

    Multiplying all costs by one factor changes nothing. The first rank always has one.
    """
    load, owners = [0] * ranks, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owners[i] = load.index(min(load))
        load[owners[i]] += costs[i]
    return owners
