"""Gangs that walk windows for a calibration."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from flowcache.runtime.actor import Answers
from flowcache.runtime.cluster import RayGangProvider, shape_of
from flowcache.runtime.ranks import Berth, RayRanks
from flowcache.runtime.session import joined
from flowcache.scheduler.gang_walks import GangWalks
from flowcache.scheduler.protocols import GangFailure
from flowcache.worker.walk_rank import WalkRank, WalkSettings
from flowcache.worker.walking import Ask


class WalkActor(Answers, WalkRank):
    """A rank as Ray runs it."""


class RayWalkGang(RayRanks):
    """Starting, then idle (`task` is None) or busy. See `protocols.WalkGang`."""

    def __init__(self, name: str, berth: Berth, settings: WalkSettings):
        shape = berth.shape
        super().__init__(name, berth, WalkActor, lambda rank: (settings, shape.device, rank, shape.ranks))
        self.task: Ask[Any] | None = None
        self._said: Any = None

    def assign(self, ask: Ask[Any]) -> None:
        self.task, self.heard = ask, time.monotonic()
        sent = ray.put(ask)
        self._pending = {actor.walk.remote(sent): rank for rank, actor in enumerate(self.actors)}

    def poll(self, ready: list[Any]) -> list[Any]:
        self.heard = time.monotonic()
        for item in ready:
            try:
                rank, said = self._got(item)
            except GangFailure as failure:
                if failure.usable:
                    self.task, self._pending = None, {}
                raise
            if rank == 0:
                self._said = said
        if self._pending:
            return []
        self._arrive()
        if self.task is None:
            return []
        said, self.task, self._said = self._said, None, None
        return [said]


@contextmanager
def walking_gangs(settings: WalkSettings, note: Callable[[str], None]) -> Iterator[GangWalks]:
    """Ray joined or started, for gangs of the shape that the options ask for. InputError where there is no room."""
    options = settings.options
    with joined(options, note) as watch:
        shape = shape_of(options, watch.ours, note)
        provider = RayGangProvider(lambda name, berth: RayWalkGang(name, berth, settings), shape, watch)
        provider.check_room()
        walks = GangWalks(provider, options, note)
        try:
            yield walks
        finally:
            walks.close()
