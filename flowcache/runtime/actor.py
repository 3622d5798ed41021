"""A rank as Ray runs it: measured, and with a log of its own (JSON lines on its stderr, which Ray keeps)."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from flowcache.progress.json_lines import RANK, json_logger, place
from flowcache.records import ChunkRecord
from flowcache.runtime.metrics import WorkMetrics
from flowcache.storage.objects.store import Store
from flowcache.worker.prefetch import Abandoned
from flowcache.worker.task import Event, Task, WorkerSettings
from flowcache.worker.worker import RankWorker

HEALTH = "health"  # calls that get a thread of their own
LOG_END = 4000  # bytes


def end_of(path: str) -> str:
    """The last LOG_END bytes of a log as text; "" where it is no file."""
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - LOG_END))
        return file.read().decode(errors="replace")


class Answers:
    """What every rank answers, whatever its gang works on."""

    def log_file(self) -> str:
        """Where Ray keeps what this process writes to its stderr."""
        return os.readlink("/proc/self/fd/2")

    @ray.method(concurrency_group=HEALTH)
    def ping(self) -> None:
        """Answers beside the work, as long as the process runs."""


class RankActor(Answers, RankWorker):
    def __init__(self, store: Store, settings: WorkerSettings, gang: str, rank: int, world: int):
        super().__init__(store, settings, gang, rank, world)
        self.logger = json_logger(RANK)
        self.metrics = WorkMetrics(gang)

    def render(self, task: Task) -> Iterator[Event]:
        with self._logged(task):
            for event in super().render(task):
                if isinstance(event, ChunkRecord):
                    self.metrics.chunk(task.request.model, task.request.policy["name"], event)
                yield event

    def assist(self, task: Task) -> None:
        with self._logged(task):
            super().assist(task)

    @ray.method(concurrency_group=HEALTH)
    def abandon(self, video_id: str, segment: int) -> None:
        """See `RankWorker.end_task`, beside which this runs."""
        self.end_task(video_id, segment)

    @contextmanager
    def _logged(self, task: Task) -> Iterator[None]:
        """Begin and end of the rank's share in a task; an exception with its traceback, which still goes on."""
        where = {**place(task.segment.video_id, task.segment.index), "rank": self.rank, "gang": self.gang}
        begin, what = time.monotonic(), "finish" if task.finish else "segment"
        self.logger.info(f"{what} started", extra=where)
        how = "failed"
        try:
            yield
            how = "finished"
        except Abandoned:
            how = "ended: its video was cancelled"
            raise
        finally:
            where["seconds"] = round(time.monotonic() - begin, 3)
            if how != "failed":
                self.logger.info(f"{what} {how}", extra=where)
            else:
                self.logger.error(f"{what} failed", extra=where, exc_info=True)
