"""What of a run the store holds, and what is left of it."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from flowcache.errors import FlowcacheError, StoreError, masked
from flowcache.inputs.options import RunOptions
from flowcache.inputs.segments import plan
from flowcache.progress.events import (
    ChunkDone,
    FailureKind,
    Note,
    RunBegan,
    RunEvent,
    SegmentCommitted,
    SegmentFailed,
    SegmentStarted,
    VideoBegan,
    VideoDead,
    VideoDone,
)
from flowcache.records import ChunkRecord, ModelSpec, RenderRequest, Segment
from flowcache.scheduler.protocols import GangWork
from flowcache.scheduler.queue import SegmentQueue, Video
from flowcache.scheduler.store_writer import StoreWriter
from flowcache.storage.chain import check_markers
from flowcache.storage.commits import (
    Listing,
    clear_dead_letter,
    done_key,
    list_commits,
    read_markers,
    stopped,
    withdraw_success,
)
from flowcache.storage.committed import CURE
from flowcache.storage.documents import DeadLetter, RunRecord, SegmentMarker, Stopped
from flowcache.storage.objects.store import Store
from flowcache.storage.proof import Unproven, read_back
from flowcache.storage.runs import without_credentials
from flowcache.storage.tables import outdate
from flowcache.worker.task import Task, worker_settings


class Refused(StoreError):
    """The store refuses what is left, to all who tried."""


class Ledger:
    """The queue, the markers and what is written of them; tells what changes. Read from the store when it is made."""

    def __init__(
        self,
        store: Store,
        record: RunRecord,
        requests: list[RenderRequest],
        specs: dict[str, ModelSpec],
        options: RunOptions,
        tell: Callable[[RunEvent], None],
    ):
        self.store, self.record, self.options, self.tell = store, record, options, tell
        self.listing, self.changed = self._listed()  # changed: whether the store may hold more than `listing` says
        outdate(store, record, self.listing)
        revived = self._revive() if options.retry_failed else set()
        dead = self.listing.dead_letters.keys() - revived
        self.queue = SegmentQueue(self._video(request, specs[request.model], dead) for request in requests)
        self.markers, damaged = read_markers(store, self.listing, self.queue.videos.keys() - self.listing.done)
        self.writer = StoreWriter(store, options.patience)
        self.rendered = 0  # chunks
        self.made: list[SegmentMarker] = []  # since this driver is at work
        tell(RunBegan(record.run_id, tuple(map(begun, self.queue.videos.values()))))
        self._give_up(damaged)

    def _listed(self) -> tuple[Listing, bool]:
        """What is committed, and whether something was taken back: a DONE without its segments says nothing."""
        listing, planned = list_commits(self.store), self.record.plan["videos"]
        untrue = {
            name
            for name in listing.done & planned.keys()
            if listing.segments.get(name) != list(range(planned[name]["segments"]))
        }
        if untrue:
            withdraw_success(self.store)
        for name in untrue:
            self.store.delete(done_key(name))
        return replace(listing, done=listing.done - untrue), bool(untrue)

    def _give_up(self, damaged: dict[str, str]) -> None:
        """The videos of which something is committed that can't be gone on with. damaged: by video, why."""
        for name, video in self.queue.videos.items():
            markers = [self.markers[name][number] for number in sorted(self.markers.get(name, {}))]
            cause = damaged.get(name) or next(map(str, check_markers(self.record, markers)), None)
            if cause and not video.dead:
                withdraw_success(self.store)
                cause = f"{cause}. {CURE}"
                letter = DeadLetter(name, None, None, cause, "damaged", 0, "", without_credentials(video.request))
                self.dead_letter(name, cause, lambda letter=letter: letter)

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
                self.tell(VideoDone(name))
            elif video.committed:
                self._publish(video)

    def work(self) -> GangWork:
        """What gangs are needed for."""
        queue, record = self.queue, self.record
        every = [video.request for video in queue.videos.values()]  # done ones too: always the same settings
        settings = worker_settings(record, every, self.options)
        waiting = [video.request for video in queue.left]
        return GangWork(self.store, settings, record.models, waiting, queue.startable, self.note)

    def note(self, message: str) -> None:
        """Tell the operator."""
        self.tell(Note(masked(message)))

    def task(self, request: RenderRequest, segment: Segment, reuse: bool, frugal: bool = False) -> Task:
        """What a gang is given, for a segment that the queue says runs from now on."""
        parent = None if segment.after is None else self.markers[request.id][segment.after]
        last = not self.queue.videos[request.id].continued(segment.index)
        self.tell(SegmentStarted(request.id, segment.index))
        return Task(request, segment, parent, last, reuse, frugal)

    def chunk_done(self, segment: Segment, record: ChunkRecord) -> None:
        self.rendered += 1
        steps = record.steps_computed, record.steps_reused
        self.tell(ChunkDone(segment.video_id, segment.index, record.chunk, *steps))

    def committed(self, marker: SegmentMarker) -> None:
        segment = self.queue.videos[marker.video_id].segments[marker.segment]
        self.changed = True
        self.made.append(marker)
        self.markers[marker.video_id][marker.segment] = marker
        video = self.queue.commit(segment)
        self.tell(SegmentCommitted(segment.video_id, segment.index, segment.chunks))
        self._publish(video)

    def failed(
        self,
        segment: Segment,
        rank: int,
        cause: str,
        kind: FailureKind,
        again: bool,
        not_on: str | None = None,
        aside: bool = False,
    ) -> None:
        """An attempt is lost. again: there may be another one, unless the video is given up by now; not_on: the node
        that failed it, if another one shall try; aside: not before the queue is told to resume it."""
        again = again and not self.queue.videos[segment.video_id].dead
        self.tell(SegmentFailed(segment.video_id, segment.index, rank, cause, kind, again))
        if again and aside:
            self.queue.set_aside(segment)
        else:
            self.queue.requeue(segment, not_on if again else None)

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

    def dead_letter(self, video_id: str, cause: str, letter: Callable[[], DeadLetter]) -> None:
        """Give the video up. letter: may take its time, to find a log."""
        self.changed = True
        self.writer.dead_letter(video_id, letter)
        self.queue.dead_letter(video_id)
        self.tell(VideoDead(video_id, cause))

    def tell_finished(self) -> None:
        """Tell which videos were marked done since the last call, and what the store refused."""
        finished, refusals = self.writer.finished, self.writer.refusals
        while finished:
            self.tell(VideoDone(finished.popleft()))
        while refusals:
            self.note(f"{refusals.popleft()}; going on, and trying again in the end")

    def stopped(self, why: str, exit_code: int, left: int) -> None:
        """Tell who watches the store, if it can be told. left: videos."""
        tell_stopped(self.store, Stopped(self.record.run_id, why, exit_code, left, time.time()), self.note)

    def gave_up(self, error: FlowcacheError) -> None:
        """The run ends by it. Of what the store refuses only to some the others are written to the end."""
        if isinstance(error, Refused):
            self._quietly("finish what is done", self._wind_up)
        self.stopped(str(error), error.exit_code, len(self.queue.left))

    def _wind_up(self) -> None:
        self.writer.drain()
        self.tell_finished()
        read_back(self.store, self.record, self.markers, None, {video.request.id for video in self.queue.left})

    def _quietly(self, what: str, write: Callable[[], object]) -> None:
        """What comes after the cause of an end must not hide it."""
        try:
            write()
        except StoreError as error:
            self.note(f"could not {what}: {error}")

    def prove(self) -> Listing:
        """What the store shows when it is read back, tables written; Unproven where that is less than the run did."""
        left = {video.request.id for video in self.queue.left}
        try:
            if self.made:
                self.store.probe()  # whether commits were exclusive to the end
            listing = None if self.changed else self.listing
            return read_back(self.store, self.record, self.markers, listing, left, self.made)
        except StoreError as error:
            if isinstance(error, Unproven):
                self._quietly("take back _SUCCESS", lambda: withdraw_success(self.store))
            unfinished = error.left if isinstance(error, Unproven) else len(left)
            self.stopped(str(error), error.exit_code, unfinished)
            raise


def tell_stopped(store: Store, end: Stopped, note: Callable[[str], None]) -> None:
    """Tell who watches the store; that it can't be told must not hide why the run ends."""
    try:
        stopped(store, end)
    except StoreError as error:
        note(f"could not say in the store that the run has ended: {error}")


def begun(video: Video) -> VideoBegan:
    """What is told of a video when the run begins."""
    chunks = sum(segment.chunks for segment in video.segments)
    there = len(video.committed), chunks - video.chunks_left
    return VideoBegan(video.request.id, len(video.segments), chunks, *there, video.dead)
