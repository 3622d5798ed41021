"""A process of a gang: its process group, and how models are spread over it."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from flowcache.inputs.options import RunOptions
from flowcache.models.base import LoadedModel, Share, VideoModel, alone
from flowcache.parallel.apply import ShardedModel
from flowcache.parallel.decoding import open_sharing
from flowcache.parallel.mesh import GangMesh, Mesh, arrange, exchanging, world
from flowcache.parallel.rendezvous import open_rendezvous, rendezvous_at


class Rank:
    """Knows nothing of what its gang works on."""

    def __init__(self, options: RunOptions, device: str, rank: int, world: int):
        torch.set_num_threads(options.threads)
        self.options, self.device, self.rank, self.world = options, device, rank, world
        self._ranks: dict[int, GangMesh] = {}  # by K/V heads: process groups are opened once, not with every model
        self._share: Share = alone

    def open_group(self) -> str:
        """Rank 0: opens the rendezvous, and says where it is."""
        return open_rendezvous()

    def join_group(self, path: str | None) -> int:
        """Every rank: joins the gang's process group (nothing to do alone); returns the process id."""
        if self.world > 1:
            timeout, world = self.exchange_timeout, self.world
            backend = "nccl" if self.device == "cuda" else "gloo"
            with exchanging():
                rendezvous = rendezvous_at(path, timeout)
                dist.init_process_group(backend, store=rendezvous, rank=self.rank, world_size=world, timeout=timeout)
                self._share = open_sharing(timeout)
        return os.getpid()

    @property
    def exchange_timeout(self) -> timedelta:
        return timedelta(seconds=self.options.exchange_timeout)

    @property
    def loader(self) -> Callable[..., VideoModel] | None:
        """What loads a transformer, as `load_model` takes it: this rank's part where weights are shared out."""
        if not self.options.shard_weights:
            return None
        from flowcache.parallel.sharding import load_sharded  # a second of imports that others do without

        load: Any = partial(load_sharded, ranks=Mesh(dist.group.WORLD))
        return load

    def spread(self, model: LoadedModel) -> LoadedModel:
        """The same, run by all ranks together. Every rank must call it, in the same order."""
        if self.world == 1:
            return model
        heads = model.transformer.kv_heads
        if heads not in self._ranks:
            self._ranks[heads] = arrange(world(), heads, self.exchange_timeout)
        sharded = ShardedModel(model.transformer, self._ranks[heads])
        return replace(model, transformer=sharded, kv_sharding=sharded.kv_sharding(), share=self._share)
