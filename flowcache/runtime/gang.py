"""A gang: N rank actors in one placement group. Made whole, used whole, torn down whole."""

import re
import time
from collections.abc import Collection
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
from flowcache.runtime.actor import HEALTH, RankActor, end_of
from flowcache.runtime.node_check import PASSED, NodeChecks
from flowcache.runtime.session import RayWatch
from flowcache.scheduler.protocols import GangFailure, kind_of
from flowcache.storage.documents import SegmentMarker
from flowcache.storage.finish_marker import FinishMarker
from flowcache.storage.objects.store import Store
from flowcache.worker.task import Again, Event, Flawed, Task, WorkerSettings

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


class RayGang:
    """Starting (actors join their group), then idle (`task` is None) or busy.

    `poll` is called when some of `waiting_for()` are ready; it raises GangFailure. See `protocols.Gang`.
    """

    def __init__(
        self,
        name: str,
        shape: GangShape,
        store: Store,
        settings: WorkerSettings,
        watch: RayWatch,
        avoided: Collection[str] = (),
        checks: NodeChecks | None = None,
    ):
        """avoided: ids of nodes that it must not be placed on; checks: that its node must have passed, if any."""
        self.name, self.shape, self.watch, self.checks = name, shape, watch, checks
        self.group: PlacementGroup = placement_group(
            [shape.bundle] * shape.ranks,
            strategy="STRICT_PACK",
            bundle_label_selector=[elsewhere(avoided)] * shape.ranks,
        )
        self.actors = [self._actor(rank, store, settings) for rank in range(shape.ranks)]
        self._logs = [actor.log_file.remote() for actor in self.actors]
        rendezvous = self.actors[0].open_group.remote() if shape.ranks > 1 else None
        self._pending = {actor.join_group.remote(rendezvous): rank for rank, actor in enumerate(self.actors)}
        self._stream: Any = None
        self._end: SegmentMarker | Flawed | Again | FinishMarker | None = None
        self.started = False
        self.node = ""
        self.model: str | None = None
        self.video: str | None = None
        self.task: Task | None = None
        self.heard = time.monotonic()  # last sign of life

    def _actor(self, rank: int, store: Store, settings: WorkerSettings) -> Any:
        place = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=rank)
        options = {"num_cpus": self.shape.cpus, "num_gpus": int(self.shape.gpu), "scheduling_strategy": place}
        # Ray's types know no concurrency groups
        fixed = ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={HEALTH: 1})  # pyright: ignore[reportCallIssue]
        worker = fixed(RankActor).options(**options)
        return worker.remote(store, settings, self.name, rank, self.shape.ranks)

    def assign(self, task: Task) -> None:
        self.task, self.heard = task, time.monotonic()
        if not task.finish:  # for which no model is loaded
            self.model, self.video = task.request.model, task.request.id
        self._stream = self.actors[0].render.options(num_returns="streaming").remote(task)
        assist = self.actors[1:] if not task.finish else ()
        self._pending = {actor.assist.remote(task): rank for rank, actor in enumerate(assist, 1)}

    def abandon(self) -> bool:
        """Of several ranks each would stop elsewhere, and hang the others."""
        if self.task is None or self.shape.ranks > 1:
            return False
        self.actors[0].abandon.remote(self.task.segment.video_id, self.task.segment.index)
        return True

    def waiting_for(self) -> list[Any]:
        return [*self._pending, *([] if self._stream is None else [self._stream])]

    def poll(self, ready: list[Any]) -> list[Event]:
        """What is new: chunk records, and when all ranks are through, what ends the task."""
        self.heard = time.monotonic()
        events: list[Event] = []
        for item in ready:
            event = self._take(item)
            if isinstance(event, SegmentMarker | Flawed | Again | FinishMarker):
                self._end, self._stream = event, None
            elif event is not None:
                events.append(event)
        if not self.waiting_for():
            self._arrive()
            if self._end:
                events.append(self._end)
                self._end = self.task = None
        return events

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

    def _take(self, item: Any) -> Event | None:
        rank = self._pending.get(item, 0) if item is not self._stream else 0
        try:
            if item is self._stream:
                event: Any = ray.get(next(self._stream))
                return event
            ray.get(item)
            del self._pending[item]
            return None
        except RayActorError as error:
            rank, how = self._lost() or (rank, f"its process is gone ({first_line(error)})")
            raise GangFailure(rank, "infra", how) from error
        except RayTaskError as error:
            cause = error.cause if error.cause is not None else error
            noticed = isinstance(cause, PeerLost)  # else another library may have, in its own words
            lost = self._lost() if noticed or not isinstance(cause, FlowcacheError) else None
            if noticed or lost:
                rank, how = lost or (rank, str(cause))
                raise GangFailure(rank, "infra", how, plain(error)) from error
            # An error that we raise ourselves leaves a rank sound; after others (CUDA's, say) who knows.
            alone = self.shape.ranks == 1 or (self.task is not None and self.task.finish)
            usable = isinstance(cause, FlowcacheError) and alone
            if usable:
                self._stream = self.task = None
            raise GangFailure(rank, kind_of(cause), f"{type(cause).__name__}: {cause}", plain(error), usable) from error
        except RayError as error:  # such as OutOfDiskError, ObjectLostError, ActorUnschedulableError
            how = f"Ray has lost its answer ({type(error).__name__}: {first_line(error)})"
            raise GangFailure(rank, "infra", how) from error

    def _lost(self) -> tuple[int, str] | None:
        """The first rank that does not answer, else the first one whose process is gone.

        In that order, since NCCL ends the processes that wait for one that has stopped.
        """
        pings = [actor.ping.remote() for actor in self.actors]
        _, silent = ray.wait(pings, num_returns=len(pings), timeout=ANSWER)
        if silent:
            return pings.index(silent[0]), "its process does not answer"
        for rank, ping in enumerate(pings):
            try:
                ray.get(ping)
            except RayActorError as error:
                return rank, f"its process is gone ({first_line(error)})"
        return None

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
