"""A gang that renders segments: see `ranks.py` for how it comes up and how it fails."""

import time
from typing import Any

import ray
from ray.exceptions import RayError

from flowcache.runtime.actor import RankActor
from flowcache.runtime.ranks import Berth, RayRanks
from flowcache.storage.documents import SegmentMarker
from flowcache.storage.finish_marker import FinishMarker
from flowcache.storage.objects.store import Store
from flowcache.worker.task import Again, Event, Flawed, Task, WorkerSettings


class RayGang(RayRanks):
    """Starting, then idle (`task` is None) or busy.

    `poll` is called when some of `waiting_for()` are ready; it raises GangFailure. See `protocols.Gang`.
    """

    def __init__(self, name: str, berth: Berth, store: Store, settings: WorkerSettings):
        ranks = berth.shape.ranks
        super().__init__(name, berth, RankActor, lambda rank: (store, settings, name, rank, ranks))
        self._stream: Any = None
        self._end: SegmentMarker | Flawed | Again | FinishMarker | None = None
        self.model: str | None = None
        self.video: str | None = None
        self.task: Task | None = None

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

    @property
    def alone(self) -> bool:
        return super().alone or (self.task is not None and self.task.finish)

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

    def _take(self, item: Any) -> Event | None:
        if item is not self._stream:
            self._got(item)
            return None
        try:
            event: Any = ray.get(next(self._stream))
        except RayError as error:
            failure = self._failure(error, 0)
            if failure.usable:
                self._stream = self.task = None
            raise failure from error
        return event
