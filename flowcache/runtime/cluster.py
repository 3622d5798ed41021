"""Ray itself: a local one started for the run, or a cluster that is joined, and the gangs on it."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray

from flowcache.errors import InputError, Problem
from flowcache.inputs.options import RunOptions
from flowcache.runtime.gang import GangShape, RayGang
from flowcache.runtime.text_encoding import EncodingPlan, encode_ahead
from flowcache.scheduler.gang_pool import ClusterError
from flowcache.scheduler.protocols import GangWork
from flowcache.storage.objects.store import Store
from flowcache.worker.task import WorkerSettings

GPU_POLL = 2.0  # seconds


@contextmanager
def joined(options: RunOptions) -> Iterator[None]:
    """Ray for the time of the run. A local one is ours and ends with us; a joined one is left as it was."""
    address = options.address or os.environ.get("RAY_ADDRESS")  # Ray sets it for submitted jobs
    common = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "flowcache"}
    ours = not ray.is_initialized()
    if ours and address:
        try:
            ray.init(address=address, **common)
        except ConnectionError as error:
            raise InputError([Problem("--address", "", f"no Ray cluster answers at {address}: {error}")]) from None
    elif ours:
        wanted = options.gang * options.threads * (options.gangs or 1)
        ray.init(address="local", num_cpus=max(os.cpu_count() or 1, wanted), include_dashboard=False, **common)
    if threading.current_thread() is threading.main_thread():
        # A polite kill ends a run like Ctrl-C until `on_sigterm`. Set after ray.init, which would abort on SIGTERM.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


class RayGangProvider:
    """Gangs of Ray actors; see `protocols.GangProvider`."""

    now = staticmethod(time.monotonic)

    def __init__(self, store: Store, settings: WorkerSettings, shape: GangShape):
        self.store, self.settings, self.shape = store, settings, shape

    def places(self) -> dict[str, int]:
        """Node by node: a gang needs all its ranks on one."""
        found = {node["NodeID"]: self.shape.fits(node["Resources"]) for node in ray.nodes() if node["Alive"]}
        return {node: gangs for node, gangs in found.items() if gangs}

    def start(self, name: str, avoided: Collection[str] = ()) -> RayGang:
        return RayGang(name, self.shape, self.store, self.settings, avoided)

    def wait(self, gangs: Sequence[RayGang], seconds: float) -> list[tuple[RayGang, list[Any]]]:
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
    with joined(options):
        shape = shape_of(options, work.note)
        provider = RayGangProvider(work.store, replace(work.settings, device=shape.device), shape)
        room = sum(provider.places().values())
        if not room and not options.address and "RAY_ADDRESS" not in os.environ:
            need = ", ".join(f"{amount * shape.ranks:g} {name}" for name, amount in shape.bundle.items())
            has = ray.cluster_resources()
            raise InputError([Problem("--gang", "", f"a gang of {shape.ranks} needs {need}; this machine has {has}")])
        gangs = max(1, min(options.gangs or room, work.startable))
        encode_ahead(work, EncodingPlan(shape, gangs * shape.ranks, options))
        yield provider


def shape_of(options: RunOptions, note: Callable[[str], None]) -> GangShape:
    gpus = ray.cluster_resources().get("GPU", 0)
    if (
        not gpus
        and options.device != "cpu"
        and options.wait_for_gpus
        and (options.address or "RAY_ADDRESS" in os.environ)
    ):
        gpus = first_gpus(options.wait_for_gpus, note)
    if options.device == "cuda" and not gpus:
        raise InputError([Problem("--device", "", "the Ray cluster has no GPU: take cpu or auto")])
    return GangShape(options.gang, options.threads, gpu=bool(gpus) and options.device != "cpu")


def first_gpus(seconds: float, note: Callable[[str], None]) -> float:
    """The GPUs of a joined cluster once it has any: its nodes may be on the way. ClusterError after so long."""
    note(f"the cluster has no GPU yet: waiting {seconds:g} s for the first one")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(GPU_POLL, seconds))
        gpus = ray.cluster_resources().get("GPU", 0)
        if gpus:
            note(f"the cluster has {gpus:g} GPUs")
            return gpus
    raise ClusterError(f"no GPU has joined the cluster in {seconds:g} s: look at its pending nodes, or wait longer")
