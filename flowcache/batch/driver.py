"""The run: hands segments to gangs until every video is committed or dead-lettered.

Keeps no state of its own: killed and started again, it reads the store and renders what is missing.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import ray

from flowcache.batch.cluster import gang_count, joined, shape_of
from flowcache.batch.encoding import EncodingPlan, encode_ahead
from flowcache.batch.gang import Gang, GangFailure, GangShape
from flowcache.batch.options import RunOptions
from flowcache.batch.plan import plan
from flowcache.batch.progress import Progress
from flowcache.batch.queue import SegmentQueue, Video
from flowcache.batch.worker import Task, WorkerSettings
from flowcache.errors import FlowcacheError, InputError, Problem, StoreError
from flowcache.models.registry import reference
from flowcache.records import ChunkRecord, ModelSpec, RenderRequest, Segment
from flowcache.storage.commits import (
    Commits,
    clear_dead_letter,
    dead_letter,
    mark_done,
    put_playlist,
    read_commits,
    success,
    withdraw_success,
)
from flowcache.storage.documents import DeadLetter, RunRecord, SegmentMarker
from flowcache.storage.objects import Store
from flowcache.storage.runs import begin_run
from flowcache.storage.tables import write_tables

START_FAILURES = 3  # gangs in a row that do not come up before the run gives up


class ClusterError(FlowcacheError):
    """No gang could be brought up."""


@dataclass(frozen=True)
class Summary:
    """How a run ended. `rendered`: chunks made by this call (0 when all was there already)."""

    run_id: str
    output: str
    done: tuple[str, ...]
    failed: dict[str, str]  # video id -> cause
    rejected: dict[str, str]  # row or video id -> what was wrong with it
    rendered: int
    seconds: float

    @property
    def exit_code(self) -> int:
        return 3 if self.failed or self.rejected else 0


def run(
    store: Store,
    record: RunRecord,
    requests: list[RenderRequest],
    specs: dict[str, ModelSpec],
    options: RunOptions,
    progress: Progress,
) -> Summary:
    """Render what the store lacks of `requests`, write tables and summary. `specs`: model name -> spec."""
    begin = time.monotonic()
    try:
        store.probe()
    except StoreError as error:
        raise InputError([Problem("output", "", str(error))]) from error
    record = begin_run(store, record)
    driver = Driver(store, record, requests, specs, options, progress)
    try:
        driver.settle_committed()
        if not driver.queue.finished:
            with joined(options):
                driver.render()
    finally:
        progress.close()
    commits = read_commits(store)
    write_tables(store, record, commits)
    failed = {name: letter.cause for name, letter in commits.dead_letters.items() if letter.kind != "rejected"}
    rejected = {problem.get("video") or f"row {problem['row']}": problem["message"] for problem in record.rejected}
    done = tuple(request.id for request in requests if request.id in commits.done)
    summary = Summary(record.run_id, store.url, done, failed, rejected, driver.rendered, time.monotonic() - begin)
    if summary.exit_code == 0:
        success(store, {"run_id": record.run_id, "videos": len(done)})
    return summary


def largest(requests: Iterable[RenderRequest]) -> dict[str, tuple[int, int]]:
    """By model, (width, height) of the frames with the most pixels."""
    found: dict[str, tuple[int, int]] = {}
    for request in requests:
        sizes = (request.width, request.height), found.get(request.model, (0, 0))
        found[request.model] = max(sizes, key=lambda size: (size[0] * size[1], size))
    return found


class Driver:
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
        commits = read_commits(store)
        self.markers: dict[str, dict[int, SegmentMarker]] = {
            request.id: {marker.segment: marker for marker in commits.all(request.id)} for request in requests
        }
        videos = [self._video(request, specs[request.model], commits) for request in requests]
        self.queue = SegmentQueue(videos)
        self.done = set(commits.done)
        self.faults: Counter[tuple[str, int, str]] = Counter()  # (video, segment, kind) -> failures
        self.gangs: list[Gang] = []
        self.rendered = 0
        self._named = 0
        self._start_failures = 0
        progress.begin(record, videos)

    def _video(self, request: RenderRequest, spec: ModelSpec, commits: Commits) -> Video:
        dead = request.id in commits.dead_letters
        if dead and self.options.retry_failed:
            withdraw_success(self.store)
            clear_dead_letter(self.store, request.id)
            dead = False
        return Video(request, plan(request, spec), set(self.markers[request.id]), dead=dead)

    def settle_committed(self) -> None:
        """What an earlier driver committed but did not live to finish."""
        for video in self.queue.videos.values():
            if video.done:
                self._finish(video)
            elif video.committed:
                self._playlist(video)

    def render(self) -> None:
        shape = shape_of(self.options)
        device = "cuda" if shape.gpu else "cpu"
        waiting = [video.request for video in self.queue.videos.values() if not (video.done or video.dead)]
        self.settings = WorkerSettings(
            self.record.run_id,
            self.record.spec_hash,
            device=device,
            dtype=self.options.dtype,
            vae_tiling=self.options.vae_tiling,
            threads=self.options.threads,
            models={name: reference(name) for name in self.record.models},
            sizes=largest(video.request for video in self.queue.videos.values()),  # done ones too: always the same
        )
        ready = sum(1 for video in self.queue.videos.values() for _ in video.ready() if not video.dead)
        count = gang_count(self.options, shape, ready)
        encoding = EncodingPlan(
            shape, count * shape.ranks, self.options.dtype, self.options.infra_retries, self.options.stall
        )
        encode_ahead(self.store, waiting, self.record.models, encoding, self.progress.note)
        try:
            self.progress.note(f"starting {count} gang{'s' * (count > 1)} of {shape.ranks} on {device}")
            for _ in range(count):
                self._add_gang(shape)
            while not self.queue.finished:
                self._step(shape)
        finally:
            for gang in self.gangs:
                gang.tear_down()

    def _step(self, shape: GangShape) -> None:
        """Give idle gangs work, wait for something to happen, take it in."""
        for gang in self.gangs:
            taken = self.queue.take(gang.model) if gang.idle else None
            if taken:
                gang.assign(self._task(*taken))
        items = [item for gang in self.gangs for item in gang.waiting_for()]
        ready, _ = ray.wait(items, timeout=1.0) if items else ([], [])
        for gang in list(self.gangs):
            mine = [item for item in gang.waiting_for() if item in ready]
            task = gang.task
            try:
                self._check_stall(gang)
                for event in gang.poll(mine) if mine else ():
                    self._take_in(gang, event)
            except GangFailure as failure:
                if task:
                    self._count(task, failure)
                if not failure.usable:
                    self._replace(gang, failure, shape)
        self.progress.tick()

    def _task(self, request: RenderRequest, segment: Segment) -> Task:
        video = self.queue.videos[request.id]
        parent = None if segment.after is None else self.markers[request.id][segment.after]
        last = all(other.after != segment.index for other in video.segments)
        self.progress.started(segment)
        return Task(request, segment, parent, last)

    def _take_in(self, gang: Gang, event: ChunkRecord | SegmentMarker) -> None:
        if not isinstance(event, SegmentMarker):
            self.rendered += 1
            self.progress.chunk(gang.task.segment, event)
            return
        segment = self.queue.videos[event.video_id].segments[event.segment]
        self.markers[event.video_id][event.segment] = event
        video = self.queue.commit(segment)
        self.progress.committed(segment)
        if video.done:
            self._finish(video)
        else:
            self._playlist(video)

    def _check_stall(self, gang: Gang) -> None:
        quiet = time.monotonic() - gang.heard
        if gang.task and quiet > self.options.stall:
            raise GangFailure(0, "infra", f"no chunk was finished for {quiet:.0f} s")
        if not gang.started and quiet > self.options.start_timeout:
            raise GangFailure(0, "infra", f"its actors did not start within {quiet:.0f} s (are the resources there?)")

    def _replace(self, gang: Gang, failure: GangFailure, shape: GangShape) -> None:
        """Tear the gang down and make it anew, unless it never came up and others did."""
        self.gangs.remove(gang)
        gang.tear_down()
        if gang.started:
            self._start_failures = 0
        elif any(other.started for other in self.gangs):
            self.progress.note(f"{gang.name} did not start ({failure}); going on with {len(self.gangs)}")
            return
        else:
            self._start_failures += 1
        if self._start_failures >= START_FAILURES:
            raise ClusterError(f"{START_FAILURES} gangs in a row did not start; the last one: {failure}")
        self._add_gang(shape)

    def _count(self, task: Task, failure: GangFailure) -> None:
        """Try the segment again while its budget lasts, else dead-letter the video."""
        segment = task.segment
        key = (segment.video_id, segment.index, failure.kind)
        self.faults[key] += 1
        budget = self.options.retries if failure.kind == "work" else self.options.infra_retries
        spent = self.faults[key] > budget
        self.progress.failed(segment, failure.rank, failure.cause, again=not spent)
        self.queue.put_back(segment)
        if spent:
            letter = DeadLetter(
                video_id=segment.video_id,
                segment=segment.index,
                rank=failure.rank,
                cause=failure.cause,
                kind=failure.kind,
                attempts=self.faults[key],
                log_tail=failure.log[-4000:],
                request=task.request.to_dict(),
            )
            dead_letter(self.store, letter)
            self.queue.bury(segment.video_id)
            self.progress.dead(segment.video_id, failure.cause)

    def _add_gang(self, shape: GangShape) -> None:
        self._named += 1
        self.gangs.append(Gang(f"gang-{self._named}", shape, self.store, self.settings))

    def _finish(self, video: Video) -> None:
        name = video.request.id
        if name not in self.done:
            markers = [self.markers[name][segment.index] for segment in video.segments]
            put_playlist(self.store, name, markers, done=True)
            mark_done(self.store, name, markers)
            self.done.add(name)
        self.progress.done(name)

    def _playlist(self, video: Video) -> None:
        """What can be watched by now: the committed segments from the start on."""
        markers = self.markers[video.request.id]
        together = []
        while len(together) in markers:
            together.append(markers[len(together)])
        if together:
            put_playlist(self.store, video.request.id, together, done=False)
