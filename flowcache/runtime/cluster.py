"""The gangs of a run on Ray."""

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray

from flowcache.errors import InputError, Problem
from flowcache.inputs.options import RunOptions
from flowcache.runtime.gang import GangShape, RayGang
from flowcache.runtime.session import RayWatch, joined
from flowcache.runtime.text_encoding import EncodingPlan, encode_ahead
from flowcache.scheduler.protocols import GangWork
from flowcache.storage.objects.store import Store
from flowcache.worker.task import WorkerSettings


class RayGangProvider:
    """Gangs of Ray actors; see `protocols.GangProvider`."""

    now = staticmethod(time.monotonic)

    def __init__(self, store: Store, settings: WorkerSettings, shape: GangShape, watch: RayWatch):
        self.store, self.settings, self.shape, self.watch = store, settings, shape, watch

    def places(self) -> dict[str, int]:
        """Node by node: a gang needs all its ranks on one."""
        found = {node["NodeID"]: self.shape.fits(node["Resources"]) for node in self.watch.nodes}
        return {node: gangs for node, gangs in found.items() if gangs}

    def start(self, name: str, avoided: Collection[str] = ()) -> RayGang:
        self.watch.check()
        return RayGang(name, self.shape, self.store, self.settings, self.watch, avoided)

    def wait(self, gangs: Sequence[RayGang], seconds: float) -> list[tuple[RayGang, list[Any]]]:
        self.watch.check()
        items = {item: gang for gang in gangs for item in gang.waiting_for()}
        if not items:
            time.sleep(seconds)  # nothing runs: the store or the cluster has to come back first
            return []
        ready, _ = ray.wait(list(items), timeout=seconds)
        if ready:
            ready, _ = ray.wait(list(items), num_returns=len(items), timeout=0)
        news: dict[RayGang, list[Any]] = {}
        for item in ready:
            news.setdefault(items[item], []).append(item)
        return list(news.items())


@contextmanager
def ray_provider(work: GangWork) -> Iterator[RayGangProvider]:
    """Ray joined or started, for gangs of the shape that the run's options ask for; texts are encoded before.

    See `protocols.Connect`.
    """
    options = work.settings.options
    with joined(options, work.note) as watch:
        shape = shape_of(options)
        provider = RayGangProvider(work.store, replace(work.settings, device=shape.device), shape, watch)
        room = sum(provider.places().values())
        if not room and not options.address and "RAY_ADDRESS" not in os.environ:
            need = ", ".join(f"{amount * shape.ranks:g} {name}" for name, amount in shape.bundle.items())
            has = ray.cluster_resources()
            raise InputError([Problem("--gang", "", f"a gang of {shape.ranks} needs {need}; this machine has {has}")])
        gangs = max(1, min(options.gangs or room, work.startable))
        encode_ahead(work, EncodingPlan(shape, gangs * shape.ranks, options))
        yield provider


def shape_of(options: RunOptions) -> GangShape:
    gpus = ray.cluster_resources().get("GPU", 0)
    if options.device == "cuda" and not gpus:
        raise InputError([Problem("--device", "", "the Ray cluster has no GPU: take cpu or auto")])
    return GangShape(options.gang, options.threads, gpu=bool(gpus) and options.device != "cpu")
