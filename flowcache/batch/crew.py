"""The gangs of a run: as many as asked for or as the cluster holds, made anew when they are lost."""

from collections.abc import Callable

from flowcache.batch.fleet import Fleet, Gang, GangFailure
from flowcache.batch.options import RunOptions
from flowcache.errors import FlowcacheError

START_FAILURES = 3  # gangs in a row that do not come up before the run makes do with those that did
ROOM_EVERY = 5.0  # seconds between two looks at the cluster's size


class ClusterError(FlowcacheError):
    """No gang could be brought up."""


class Crew:
    """`note` tells the operator what happens to gangs."""

    def __init__(self, fleet: Fleet, options: RunOptions, note: Callable[[str], None]):
        self.fleet, self.options, self.note = fleet, options, note
        self.gangs: list[Gang] = []
        self._named = 0
        self._failures = 0  # to start, since a gang last did
        self._up: set[str] = set()  # gangs that had started
        self._room = fleet.room()
        self._looked = fleet.now()
        self._ceiling: int | None = None  # gangs that started when others did not, until the cluster grows

    def adjust(self, startable: int) -> None:
        """Start gangs while segments wait and the cluster has room; let those go that it has lost or nobody needs."""
        self._look()
        up = {gang.name for gang in self.gangs if gang.started}
        if not up <= self._up:
            self._failures = 0
        self._up = up
        limit = self.options.gangs or max(self._room, 1)
        limit = limit if self._ceiling is None else min(limit, self._ceiling)
        idle = sum(gang.task is None for gang in self.gangs)  # those that start included: they will take work, too
        more = min(limit - len(self.gangs), startable - idle)
        if more > 0:
            self.note(f"starting {more} gang{'s' * (more > 1)}, running {len(self.gangs)}")
        for _ in range(more):
            self._named += 1
            self.gangs.append(self.fleet.start(f"gang-{self._named}"))
        for gang in self._spare(limit, startable):
            self.gangs.remove(gang)
            gang.tear_down()

    def _look(self) -> None:
        if self.fleet.now() - self._looked < ROOM_EVERY:
            return
        self._looked, before, self._room = self.fleet.now(), self._room, self.fleet.room()
        if self._room != before:
            self.note(f"the cluster has room for {self._room} gangs now, had for {before}")
        if self._room > before:
            self._ceiling = None

    def _spare(self, limit: int, startable: int) -> list[Gang]:
        """Gangs that wait for resources which are gone, and those long idle when no work waits."""
        waiting = [gang for gang in self.gangs if not gang.started]
        over = max(len(self.gangs) - limit, 0)
        quiet = self.fleet.now() - self.options.idle_release
        idle = [gang for gang in self.gangs if gang.started and gang.task is None and gang.heard < quiet]
        return waiting[len(waiting) - min(over, len(waiting)) :] + (idle if not startable else [])

    def lost(self, gang: Gang, failure: GangFailure) -> None:
        """Tear the gang down. After several in a row that never came up: no more gangs, ClusterError without any."""
        self.gangs.remove(gang)
        gang.tear_down()
        if gang.started:
            return
        self.note(f"{gang.name} did not start ({failure})")
        self._failures += 1
        if self._failures < START_FAILURES:  # a rank may be lost then, too
            return
        if not any(other.started for other in self.gangs):
            raise ClusterError(f"{START_FAILURES} gangs in a row did not start; the last one: {failure}")
        self._failures, self._ceiling = 0, len(self.gangs)
        self.note(f"going on with {len(self.gangs)} gang{'s' * (len(self.gangs) > 1)}")

    def overdue(self, gang: Gang) -> GangFailure | None:
        """The failure of a gang that has been quiet for too long."""
        quiet = self.fleet.now() - gang.heard
        if gang.task and quiet > self.options.stall:
            return GangFailure(0, "infra", f"no chunk was finished for {quiet:.0f} s")
        if not gang.started and quiet > self.options.start_timeout:
            return GangFailure(0, "infra", f"its actors did not start within {quiet:.0f} s (are the resources there?)")
        return None

    def disband(self) -> None:
        for gang in self.gangs:
            gang.tear_down()
        self.gangs.clear()
