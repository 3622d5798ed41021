"""The gangs of a run: as many as asked for or as the cluster holds, made anew when they are lost."""

from collections.abc import Callable
from typing import Generic

from flowcache.errors import FlowcacheError, masked
from flowcache.inputs.options import RunOptions
from flowcache.records import Segment
from flowcache.scheduler.node_health import Attempts, NodeHealth
from flowcache.scheduler.protocols import G, GangFailure, GangProvider

START_FAILURES = 3  # gangs in a row that do not come up before the run makes do with those that did
ROOM_EVERY = 5.0  # seconds between two looks at the cluster's size


class ClusterError(FlowcacheError):
    """No gang could be brought up."""


class GangPool(Generic[G]):
    """`note` tells the operator what happens to gangs."""

    def __init__(self, provider: GangProvider[G], options: RunOptions, note: Callable[[str], None]):
        self.provider, self.options, self.note = provider, options, note
        self.gangs: list[G] = []
        self._named = 0
        self._failures = 0  # to start, since a gang last did
        self._up: set[str] = set()  # gangs that had started
        self.nodes = NodeHealth()
        self._places = provider.places()
        self._had = self.room
        self._looked = provider.now()
        self._ceiling: int | None = None  # gangs that started when others did not, until the cluster grows

    @property
    def avoided(self) -> frozenset[str]:
        """Nodes that get no work for now."""
        return self.nodes.avoided(self.provider.now())

    @property
    def room(self) -> int:
        """How many gangs the cluster holds, the avoided nodes left out."""
        avoided = self.avoided
        return sum(gangs for node, gangs in self._places.items() if node not in avoided)

    def adjust(self, startable: int) -> None:
        """Start gangs while segments wait and the cluster has room; let those go that it has lost or nobody needs."""
        self._look()
        up = {gang.name for gang in self.gangs if gang.started}
        if not up <= self._up:
            self._failures = 0
        self._up = up
        limit = self.options.gangs or max(self.room, 1)
        limit = limit if self._ceiling is None else min(limit, self._ceiling)
        idle = sum(gang.task is None for gang in self.gangs)  # those that start included: they will take work, too
        more = min(limit - len(self.gangs), startable - idle)
        if more > 0:
            self.note(f"starting {more} gang{'s' * (more > 1)}, running {len(self.gangs)}")
        for _ in range(more):
            self._named += 1
            self.gangs.append(self.provider.start(f"gang-{self._named}", self.avoided))
        for gang in self._spare(limit, startable):
            self.gangs.remove(gang)
            gang.tear_down()

    def _look(self) -> None:
        if self.provider.now() - self._looked < ROOM_EVERY:
            return
        self._looked, self._places = self.provider.now(), self.provider.places()
        before, self._had = self._had, self.room
        if self._had != before:
            self.note(f"the cluster has room for {self._had} gangs now, had for {before}")
        if self._had > before:
            self._ceiling = None

    def _spare(self, limit: int, startable: int) -> list[G]:
        """Gangs that wait for resources which are gone, and idle ones: on avoided nodes, or long so when no work
        waits."""
        waiting = [gang for gang in self.gangs if not gang.started]
        over = max(len(self.gangs) - limit, 0)
        quiet, avoided = self.provider.now() - self.options.idle_release, self.avoided
        idle = [gang for gang in self.gangs if gang.started and gang.task is None]
        spare = [gang for gang in idle if gang.node in avoided or (gang.heard < quiet and not startable)]
        return waiting[len(waiting) - min(over, len(waiting)) :] + spare

    def lost(self, gang: G, failure: GangFailure) -> None:
        """Tear the gang down. After several in a row that never came up: no more gangs, ClusterError without any."""
        self.gangs.remove(gang)
        gang.tear_down()
        if gang.started:
            return
        self.note(f"{gang.name} did not start ({failure})")
        if failure.kind == "node" and self.room:  # a node that came meanwhile; the next gang goes elsewhere
            return
        self._failures += 1
        if self._failures < START_FAILURES:  # a rank may be lost then, too
            return
        if not any(other.started for other in self.gangs):
            raise ClusterError(f"{START_FAILURES} gangs in a row did not start; the last one: {failure}")
        self._failures, self._ceiling = 0, len(self.gangs)
        self.note(f"going on with {len(self.gangs)} gang{'s' * (len(self.gangs) > 1)}")

    def failed(self, node: str, segment: Segment, failure: GangFailure) -> Attempts:
        """The attempts that are counted as the node's fault from now on, and no longer as the work's."""
        before = self.avoided
        found = self.nodes.failed(node, segment, failure.kind, self._places, self.provider.now())
        if node in self.avoided - before:
            why = "its machine is at fault" if failure.kind == "node" else "attempts failed there in a row"
            self.note(f"node {node} gets no work for a while: {why}; the last cause: {failure.cause}")
        return found

    def elsewhere(self, node: str) -> bool:
        """Whether a gang of another node may do better: one that is trusted, or that has yet to start or to end."""
        avoided = self.avoided
        others = [gang for gang in self.gangs if gang.node != node and gang.node not in avoided]
        return any(gang.task or not gang.started or self.nodes.trusted(gang.node) for gang in others)

    def overdue(self, gang: G) -> GangFailure | None:
        """The failure of a gang that has been quiet for too long."""
        quiet = self.provider.now() - gang.heard
        if gang.task and quiet > self.options.segment_timeout:
            return GangFailure(0, "infra", f"no chunk was finished for {quiet:.0f} s")
        if not gang.started and quiet > self.options.start_timeout:
            return GangFailure(0, "infra", f"its actors did not start within {quiet:.0f} s (are the resources there?)")
        return None

    def disband(self) -> None:
        """At the end of a run; what goes wrong then must not hide why it ends."""
        for gang in self.gangs:
            try:
                gang.tear_down()
            except Exception as error:  # noqa: BLE001 (anything of what gangs run on)
                self.note(f"{gang.name} could not be torn down ({type(error).__name__}: {masked(str(error))})")
        self.gangs.clear()
