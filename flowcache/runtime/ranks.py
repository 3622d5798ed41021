"""N rank actors in one placement group: made whole, torn down whole, and what Ray raises of them is named."""

import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from flowcache.errors import FlowcacheError, first_line
from flowcache.parallel.mesh import PeerLost
from flowcache.runtime.actor import HEALTH, end_of
from flowcache.runtime.node_check import PASSED, NodeChecks
from flowcache.runtime.session import RayWatch
from flowcache.scheduler.protocols import GangFailure, kind_of

ANSWER = 3.0  # seconds in which a rank answers that it is alive
LOG_PATIENCE = 20.0  # seconds for a node to start a process that reads a log
NODE_LABEL = "ray.io/node-id"  # which Ray gives every node


@dataclass(frozen=True)
class GangShape:
    """Resources of one gang: `ranks` bundles of `cpus` CPUs and, where `gpu` is set, one GPU each."""

    ranks: int
    cpus: int
    gpu: bool

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self.gpu else "cpu"

    @property
    def bundle(self) -> dict[str, float]:
        return {"CPU": self.cpus, "GPU": 1} if self.gpu else {"CPU": self.cpus}

    def fits(self, resources: dict[str, float]) -> int:
        """How many such gangs the resources of one node hold."""
        return min(int(resources.get(name, 0) // (amount * self.ranks)) for name, amount in self.bundle.items())


@dataclass(frozen=True)
class Berth:
    """Where a gang is to lie. avoided: ids of nodes that it must not be placed on; checks: that its node must have
    passed, if any."""

    shape: GangShape
    watch: RayWatch
    avoided: Collection[str] = ()
    checks: NodeChecks | None = None


class RayRanks:
    """Starting: actors join their group. What they do then is for a subclass to say."""

    def __init__(self, name: str, berth: Berth, actor: type, arguments: Callable[[int], tuple[Any, ...]]):
        """actor: a `Rank` that answers (`actor.Answers`); arguments: of each rank's."""
        self.name, self.shape, self.watch, self.checks = name, berth.shape, berth.watch, berth.checks
        shape = self.shape
        self.group: PlacementGroup = placement_group(
            [shape.bundle] * shape.ranks,
            strategy="STRICT_PACK",
            bundle_label_selector=[elsewhere(berth.avoided)] * shape.ranks,
        )
        self.actors = [self._actor(rank, actor, arguments(rank)) for rank in range(shape.ranks)]
        self._logs = [actor.log_file.remote() for actor in self.actors]
        rendezvous = self.actors[0].open_group.remote() if shape.ranks > 1 else None
        self._pending = {actor.join_group.remote(rendezvous): rank for rank, actor in enumerate(self.actors)}
        self.started = False
        self.node = ""
        self.heard = time.monotonic()  # last sign of life

    def _actor(self, rank: int, actor: type, arguments: tuple[Any, ...]) -> Any:
        place = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=rank)
        options = {"num_cpus": self.shape.cpus, "num_gpus": int(self.shape.gpu), "scheduling_strategy": place}
        # Ray's types know no concurrency groups
        fixed: Any = ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={HEALTH: 1})  # pyright: ignore[reportCallIssue]
        return fixed(actor).options(**options).remote(*arguments)

    def waiting_for(self) -> list[Any]:
        return [*self._pending]

    @property
    def alone(self) -> bool:
        """Whether no other rank waits for one that fails."""
        return self.shape.ranks == 1

    def _arrive(self) -> None:
        """All ranks have joined; it may take work once its node has shown that it reaches the store."""
        self.node = self.node or placement_group_table(self.group)["bundles_to_node_id"][0]
        verdict = self.checks.verdict(self.node) if self.checks else PASSED
        if verdict and verdict.why:
            raise GangFailure(0, "node", verdict.why)
        self.started = self.started or verdict is not None

    @property
    def admitted(self) -> bool:
        """It has to be polled: it has arrived, and now its node has answered."""
        arrived = bool(self.node) and not self.started
        return arrived and (self.checks is None or self.checks.verdict(self.node) is not None)

    def _got(self, item: Any) -> tuple[int, Any]:
        """Of something pending that is ready: whose it is, and what it says. GangFailure."""
        rank = self._pending[item]
        try:
            said = ray.get(item)
        except RayError as error:
            raise self._failure(error, rank) from error
        del self._pending[item]
        return rank, said

    def _failure(self, error: RayError, rank: int) -> GangFailure:
        """What has happened where `rank` answers with the error; a rank that is sound and alone stays usable."""
        if isinstance(error, RayActorError):
            rank, how = self._lost() or (rank, f"its process is gone ({first_line(error)})")
            return GangFailure(rank, "infra", how)
        if isinstance(error, RayTaskError):
            cause = error.cause if error.cause is not None else error
            noticed = isinstance(cause, PeerLost)  # else another library may have, in its own words
            lost = self._lost() if noticed or not isinstance(cause, FlowcacheError) else None
            if noticed or lost:
                rank, how = lost or (rank, str(cause))
                return GangFailure(rank, "infra", how, plain(error))
            # An error that we raise ourselves leaves a rank sound; after others (CUDA's, say) who knows.
            usable = isinstance(cause, FlowcacheError) and self.alone
            return GangFailure(rank, kind_of(cause), f"{type(cause).__name__}: {cause}", plain(error), usable)
        # such as OutOfDiskError, ObjectLostError, ActorUnschedulableError
        how = f"Ray has lost its answer ({type(error).__name__}: {first_line(error)})"
        return GangFailure(rank, "infra", how)

    def _lost(self) -> tuple[int, str] | None:
        """A rank that had come up and does not answer, else one whose process is gone, else one that never came up.

        In that order, since NCCL ends the processes that wait for one that has stopped. What starts is silent, too.
        """
        pings = [actor.ping.remote() for actor in self.actors]
        answered, silent = ray.wait(pings, num_returns=len(pings), timeout=ANSWER)
        up, _ = ray.wait(self._logs, num_returns=len(self._logs), timeout=0)
        for rank, ping in enumerate(pings):
            if ping in silent and self._logs[rank] in up:
                return rank, "its process does not answer"
        for ping in answered:
            try:
                ray.get(ping)
            except RayActorError as error:
                return pings.index(ping), f"its process is gone ({first_line(error)})"
        return (pings.index(silent[0]), "its process has not come up") if silent else None

    def log_of(self, rank: int) -> str:
        """The end of what a rank has written, alive or not, if its node is still there to read it."""
        if not ray.is_initialized() or self.watch.lost:
            return ""
        there = NodeAffinitySchedulingStrategy(self.node, soft=False)
        read = ray.remote(num_cpus=0, max_retries=0)(end_of).options(scheduling_strategy=there)
        try:
            return ray.get(read.remote(self._logs[rank]), timeout=LOG_PATIENCE)
        except RayError:  # the node is lost, or in no state to answer
            return ""

    def tear_down(self) -> None:
        """Kill every rank and give the resources back; a gang is never mended, only made anew."""
        if self.watch.lost:
            return  # so is the gang, and nobody would answer
        for actor in self.actors:
            ray.kill(actor, no_restart=True)
        remove_placement_group(self.group)


def elsewhere(avoided: Collection[str]) -> dict[str, str]:
    """The label selector of what must not be placed on those nodes."""
    return {NODE_LABEL: f"!in({','.join(sorted(avoided))})"} if avoided else {}


def plain(error: BaseException) -> str:
    """The remote traceback without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error))
