"""The run: hands segments to gangs until every video is committed or dead-lettered.

Keeps no state of its own: killed and started again, it reads the store and renders what is missing.
"""

import time
from collections.abc import Iterable
from typing import Any

from flowcache.errors import InputError, Problem, StoreError
from flowcache.inputs.options import RunOptions
from flowcache.inputs.segments import plan
from flowcache.progress.progress import Progress
from flowcache.records import ChunkRecord, ModelSpec, RenderRequest, Segment
from flowcache.scheduler.failures import Failures
from flowcache.scheduler.gang_pool import ClusterError, GangPool
from flowcache.scheduler.protocols import Connect, Gang, GangFailure, GangProvider, GangWork
from flowcache.scheduler.queue import SegmentQueue, Video
from flowcache.scheduler.stopping import Stopping, on_sigterm
from flowcache.scheduler.store_writer import StoreWriter
from flowcache.scheduler.summary import Summary, summarise
from flowcache.storage.commits import (
    Listing,
    clear_dead_letter,
    list_commits,
    read_markers,
    stopped,
    success,
    withdraw_stopped,
    withdraw_success,
)
from flowcache.storage.documents import RunRecord, SegmentMarker, Stopped
from flowcache.storage.objects.store import Store
from flowcache.storage.proof import Unproven, read_back
from flowcache.storage.runs import begin_run
from flowcache.worker.task import Event, Flawed, Task, worker_settings

WATCH_EVERY = 1.0  # seconds between two looks for stalls and for room in the cluster


def run(
    store: Store,
    record: RunRecord,
    requests: list[RenderRequest],
    specs: dict[str, ModelSpec],
    options: RunOptions,
    progress: Progress,
    connect: Connect,
) -> Summary:
    """Render what the store lacks of `requests`, write tables and summary. `specs`: model name -> spec.

    connect: brings up what gangs run on.
    """
    begin = time.monotonic()
    try:
        store.probe()
    except StoreError as error:
        raise InputError([Problem("output", "", str(error))]) from error
    record = begin_run(store, record)
    withdraw_stopped(store)
    driver = Driver(store, record, requests, specs, options, progress)
    try:
        driver.settle_committed()
        if not driver.queue.finished and not driver.stopping.late:
            with connect(driver.work()) as provider, on_sigterm(driver.stopping.stop):
                driver.render(provider)
                driver.writer.drain()  # dead letters still ask nodes for logs
        driver.writer.drain()
        driver.note_finished()
    except ClusterError as error:
        driver.note_stopped(str(error), error.exit_code, len(driver.queue.left))
        raise
    finally:
        driver.writer.close()
        progress.close()
    queue, why, listing = driver.queue, driver.stopping.why, driver.prove()
    summary = summarise(store, record, listing, queue, driver.rendered, why, time.monotonic() - begin)
    if summary.exit_code == 0:
        success(store, {"run_id": record.run_id, "videos": len(summary.done)})
    elif summary.stopped:
        driver.note_stopped(summary.stopped, summary.exit_code, summary.left)
    return summary


class Driver:
    """The queue of segments, the gangs, and what is known of both."""

    def __init__(
        self,
        store: Store,
        record: RunRecord,
        requests: list[RenderRequest],
        specs: dict[str, ModelSpec],
        options: RunOptions,
        progress: Progress,
    ):
        self.store, self.record, self.options, self.progress = store, record, options, progress
        self.listing = list_commits(store)
        self.changed = False  # whether the store may hold more than `listing` says
        revived = self._revive() if options.retry_failed else set()
        dead = self.listing.dead_letters.keys() - revived
        self.queue = SegmentQueue(self._video(request, specs[request.model], dead) for request in requests)
        self.markers = read_markers(store, self.listing, self.queue.videos.keys() - self.listing.done)
        self.writer = StoreWriter(store, options.patience)
        self.spoilt: set[tuple[str, int]] = set()  # (video, segment) to render without reuse
        self.rendered = 0
        self.stopping = Stopping(options)
        progress.begin(record, self.queue.videos.values())

    def _revive(self) -> set[str]:
        """Give the videos that failed another chance."""
        failed = {name for name, letter in self.listing.dead_letters.items() if letter.kind != "rejected"}
        if failed:
            self.changed = True
            withdraw_success(self.store)
        for name in failed:
            clear_dead_letter(self.store, name)
        return failed

    def _video(self, request: RenderRequest, spec: ModelSpec, dead: Iterable[str]) -> Video:
        segments = plan(request, spec)
        done = request.id in self.listing.done
        committed = range(len(segments)) if done else self.listing.segments.get(request.id, ())
        return Video(request, segments, committed, dead=request.id in dead and not done)

    def settle_committed(self) -> None:
        """What an earlier driver committed but did not live to finish."""
        for name, video in self.queue.videos.items():
            if name in self.listing.done:
                self.progress.done(name)
            elif video.committed:
                self._publish(video)

    def work(self) -> GangWork:
        """What gangs are needed for."""
        queue, record = self.queue, self.record
        every = [video.request for video in queue.videos.values()]  # done ones too: always the same settings
        settings = worker_settings(record, every, self.options)
        waiting = [video.request for video in queue.left]
        return GangWork(self.store, settings, record.models, waiting, queue.startable, self.progress.note)

    def render(self, provider: GangProvider) -> None:
        """Until nothing is left, or the run is stopped."""
        self.provider = provider
        self.pool = GangPool(provider, self.options, self.progress.note)
        run_id = self.record.run_id
        self.failures = Failures(self.pool, self.queue, self.writer, self.progress, self.options, run_id)
        self.stopping.begin(provider.now())
        self._watched = provider.now() - WATCH_EVERY
        try:
            while not self.queue.finished and not self._over():
                self._watch()
                for gang, news in provider.wait(self.pool.gangs, WATCH_EVERY):
                    self._hear(gang, news)
                    self._assign(gang)
                self.progress.tick()
        finally:
            self.pool.disband()
            self.changed = self.changed or self.failures.dead_lettered > 0

    def _over(self) -> bool:
        """Whether a stopped run has nothing more to wait for."""
        return self.stopping.over(self.provider.now(), any(gang.task for gang in self.pool.gangs))

    def _watch(self) -> None:
        """Once a second: stalls, room in the cluster, gangs that found no work, what the writer did."""
        now = self.provider.now()
        if now - self._watched < WATCH_EVERY:
            return
        self._watched = now
        for gang in list(self.pool.gangs):
            failure = self.pool.overdue(gang)
            if failure:
                self.failures.take(gang, gang.task, failure)
        if not self.stopping.why:
            self.pool.adjust(self.queue.startable)
        self.queue.release(lambda node, segment: self.pool.elsewhere(node))
        self.failures.settle()
        self.progress.avoided(len(self.pool.avoided))
        for gang in self.pool.gangs:
            self._assign(gang)
        self.writer.check()
        self.note_finished()

    def note_finished(self) -> None:
        """Tell which videos were marked done since the last call."""
        finished = self.writer.finished
        while finished:
            self.progress.done(finished.popleft())

    def note_stopped(self, why: str, exit_code: int, left: int) -> None:
        """Tell who watches the store. left: videos."""
        stopped(self.store, Stopped(self.record.run_id, why, exit_code, left, time.time()))

    def prove(self) -> Listing:
        """What the store shows when it is read back, tables written; Unproven where that is less than the run did."""
        left = {video.request.id for video in self.queue.left}
        try:
            return read_back(self.store, self.record, self.markers, None if self.changed else self.listing, left)
        except Unproven as lack:
            withdraw_success(self.store)
            self.note_stopped(str(lack), lack.exit_code, lack.left)
            raise

    def _assign(self, gang: Gang) -> None:
        """Work for the gang, if it is idle and there is any."""
        idle = gang.started and not gang.task and gang.node not in self.pool.avoided
        if not idle or self.stopping.why or self.failures.in_doubt:
            return
        witness = gang.node if self.pool.nodes.trusted(gang.node) else None
        taken = self.queue.take(gang.model, gang.video, len(self.pool.gangs), witness)
        if taken:
            gang.assign(self._task(*taken))

    def _task(self, request: RenderRequest, segment: Segment) -> Task:
        parent = None if segment.after is None else self.markers[request.id][segment.after]
        last = not self.queue.videos[request.id].continued(segment.index)
        self.progress.started(segment)
        return Task(request, segment, parent, last, reuse=(request.id, segment.index) not in self.spoilt)

    def _hear(self, gang: Gang, news: list[Any]) -> None:
        task = gang.task
        try:
            for event in gang.poll(news):
                self._handle(gang, task, event)
        except GangFailure as failure:
            self.failures.take(gang, task, failure)

    def _handle(self, gang: Gang, task: Task, event: Event) -> None:
        if isinstance(event, ChunkRecord):
            self.rendered += 1
            self.progress.chunk(task.segment, event)
        elif isinstance(event, Flawed):
            self._again_without_reuse(task, event)
        else:
            self.pool.nodes.committed(gang.node)
            self._committed(event)

    def _again_without_reuse(self, task: Task, event: Flawed) -> None:
        """Nobody's fault: it may be what the prompt asks for, and then it comes out so again and is kept."""
        segment = task.segment
        self.spoilt.add((segment.video_id, segment.index))
        cause = f"chunk {event.chunk} is {event.flaw}: rendered without reuse"
        self.progress.failed(segment, 0, cause, "flaw", again=True)
        self.queue.requeue(segment)

    def _committed(self, event: SegmentMarker) -> None:
        segment = self.queue.videos[event.video_id].segments[event.segment]
        self.changed = True
        self.markers[event.video_id][event.segment] = event
        video = self.queue.commit(segment)
        self.progress.committed(segment)
        self._publish(video)

    def _publish(self, video: Video) -> None:
        """What can be watched by now: the committed segments from the start on."""
        self.changed = True
        markers = self.markers[video.request.id]
        together = []
        while len(together) in markers:
            together.append(markers[len(together)])
        if video.done:
            self.writer.finish(video.request.id, together)
        elif together:
            self.writer.playlist(video.request.id, together)
