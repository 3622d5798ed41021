"""Where gangs are placed on Ray, and the gangs of a run."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Generic, TypeVar

import ray

from flowcache.errors import InputError, Problem
from flowcache.inputs.options import RunOptions
from flowcache.runtime.gang import RayGang
from flowcache.runtime.node_check import NodeChecks
from flowcache.runtime.ranks import Berth, GangShape, RayRanks
from flowcache.runtime.session import RayWatch, joined
from flowcache.runtime.text_encoding import EncodingPlan, encode_ahead
from flowcache.scheduler.gang_pool import ClusterError
from flowcache.scheduler.protocols import GangWork

GPU_POLL = 2.0  # seconds
R = TypeVar("R", bound=RayRanks)


class RayGangProvider(Generic[R]):
    """Gangs of Ray actors; see `protocols.GangProvider`."""

    now = staticmethod(time.monotonic)

    def __init__(
        self, make: Callable[[str, Berth], R], shape: GangShape, watch: RayWatch, checks: NodeChecks | None = None
    ):
        """make: a gang of that name; checks: that nodes must have passed; None: no node is asked anything."""
        self.make, self.shape, self.watch, self.checks = make, shape, watch, checks

    def places(self) -> dict[str, int]:
        """Node by node: a gang needs all its ranks on one, and its node must reach the store."""
        found = self._roomy()
        admitted = (
            self.checks.admitted({node: address for node, (address, _) in found.items()}) if self.checks else found
        )
        return {node: gangs for node, (_, gangs) in found.items() if node in admitted}

    def addresses(self) -> dict[str, str]:
        """Of the nodes that have room for a gang."""
        return {node: address for node, (address, _) in self._roomy().items()}

    def _roomy(self) -> dict[str, tuple[str, int]]:
        """By node, its address and how many gangs it holds, if any."""
        alive = self.watch.nodes
        found = {node["NodeID"]: (node["NodeManagerAddress"], self.shape.fits(node["Resources"])) for node in alive}
        return {node: place for node, place in found.items() if place[1]}

    def start(self, name: str, avoided: Collection[str] = ()) -> R:
        self.watch.check()
        unproven = self.checks.unproven if self.checks else set()
        return self.make(name, Berth(self.shape, self.watch, unproven.union(avoided), self.checks))

    def check_room(self) -> None:
        """InputError where a Ray of our own has no room for a gang."""
        if self.watch.ours and not any(self.places().values()):
            shape, has = self.shape, ray.cluster_resources()
            need = ", ".join(f"{amount * shape.ranks:g} {name}" for name, amount in shape.bundle.items())
            raise InputError([Problem("--gang", "", f"a gang of {shape.ranks} needs {need}; this machine has {has}")])

    def wait(self, gangs: Sequence[R], seconds: float) -> list[tuple[R, list[Any]]]:
        self.watch.check()
        items = {item: gang for gang in gangs for item in gang.waiting_for()}
        news: dict[R, list[Any]] = {gang: [] for gang in gangs if gang.admitted}
        if not items:
            if not news:
                time.sleep(seconds)  # nothing runs: the store or the cluster has to come back first
            return list(news.items())
        ready, _ = ray.wait(list(items), timeout=0 if news else seconds)
        if ready:
            ready, _ = ray.wait(list(items), num_returns=len(items), timeout=0)
        for item in ready:
            news.setdefault(items[item], []).append(item)
        return list(news.items())


@contextmanager
def ray_provider(work: GangWork) -> Iterator[RayGangProvider[RayGang]]:
    """Ray joined or started, for gangs of the shape that the run's options ask for; texts are encoded before.

    See `protocols.Connect`.
    """
    options = work.settings.options
    with joined(options, work.note) as watch, _checks(work, watch.ours) as checks:
        shape = shape_of(options, watch.ours, work.note)
        settings = replace(work.settings, device=shape.device)
        provider = RayGangProvider(lambda name, berth: RayGang(name, berth, work.store, settings), shape, watch, checks)
        if checks:
            checks.begin(provider.addresses, options.patience)
        provider.check_room()
        gangs = max(1, min(options.gangs or sum(provider.places().values()), work.startable))
        encode_ahead(work, EncodingPlan(shape, gangs * shape.ranks, options, checks.unproven if checks else ()))
        yield provider


@contextmanager
def _checks(work: GangWork, local: bool) -> Iterator[NodeChecks | None]:
    """None of a Ray of our own: its one node is this machine."""
    if local:
        yield None
        return
    checks = NodeChecks(work.store, work.note)
    try:
        yield checks
    finally:
        checks.close()


def shape_of(options: RunOptions, ours: bool, note: Callable[[str], None]) -> GangShape:
    """ours: a Ray of our own, which gets no more than it has."""
    gpus = ray.cluster_resources().get("GPU", 0)
    if not gpus and not ours and options.wait_for_gpus and options.device != "cpu":
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
