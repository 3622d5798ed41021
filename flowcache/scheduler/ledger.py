"""What of a run the store holds, and what is left of it."""

import threading
import time
from collections.abc import Callable, Iterable, Set
from concurrent.futures import Future
from contextlib import suppress

from flowcache.errors import FlowcacheError, StoreError, masked
from flowcache.inputs.options import RunOptions
from flowcache.progress.events import (
    ChunkDone,
    FailureKind,
    FinishDead,
    Note,
    RunBegan,
    RunEvent,
    SegmentCommitted,
    SegmentFailed,
    SegmentStarted,
    SegmentsWithdrawn,
    VideoDead,
    VideoDone,
    VideoFinished,
)
from flowcache.records import ChunkRecord, ModelSpec, RenderRequest, Segment
from flowcache.scheduler.protocols import GangWork
from flowcache.scheduler.queue import SegmentQueue, Video
from flowcache.scheduler.stock import Stock
from flowcache.scheduler.store_writer import StoreWriter
from flowcache.scheduler.telling import begun, quietly, tell_stopped
from flowcache.storage.commits import Listing, list_commits, put_playlist, read_markers, withdraw_success
from flowcache.storage.committed import CURE
from flowcache.storage.documents import DeadLetter, RunRecord, SegmentMarker, Stopped
from flowcache.storage.finish_marker import FinishMarker
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import Hold
from flowcache.storage.parts import outdate
from flowcache.storage.proof import Unproven, read_back
from flowcache.storage.repair import fault_of_commit, take_back
from flowcache.storage.runs import without_credentials
from flowcache.storage.tables import write_tables
from flowcache.worker.task import Raised, Task, worker_settings


class Refused(StoreError):
    """The store refuses what is left, to all who tried."""


class Ledger:
    """The queue, the markers and what is written of them; tells what changes. Read from the store when it is made."""

    def __init__(
        self,
        store: Store,
        record: RunRecord,
        hold: Hold,
        requests: list[RenderRequest],
        specs: dict[str, ModelSpec],
        options: RunOptions,
        tell: Callable[[RunEvent], None],
    ):
        self.store, self.record, self.hold, self.options, self.tell = store, record, hold, options, tell
        self.mending = threading.Lock()
        self.outside: Set[str] = record.plan["videos"].keys() - {request.id for request in requests}  # not asked for
        stock = Stock(store, record, hold, self.note, options.finish)
        stock.revive(self.outside, options.retry_failed)
        self.markers, damaged = stock.usable([one.id for one in requests if one.id not in stock.listing.done])
        outdate(store, record, stock.listing)
        self.listing, self.changed = (
            stock.listing,
            stock.changed,
        )  # changed: the store may hold more than `listing` says
        self.queue = SegmentQueue(stock.video(request, specs[request.model]) for request in requests)
        self.writer = StoreWriter(store, options.patience)
        self.rendered = 0  # chunks
        self.made: list[SegmentMarker] = []  # since this driver is at work
        self.finishes: list[FinishMarker] = []  # alike
        if any(video.rendered and not (video.done or video.dead) for video in self.queue.videos.values()):
            withdraw_success(store)  # what is left to do is a finish that was not asked for before
            self.changed = True
        tell(RunBegan(record.run_id, tuple(map(begun, self.queue.videos.values()))))
        self._give_up(damaged)

    def _give_up(self, damaged: dict[str, str]) -> None:
        """The videos of which something is committed that can't be gone on with. damaged: by video, why."""
        for name, why in damaged.items():
            withdraw_success(self.store)
            cause, request = f"{why}. {CURE}", without_credentials(self.queue.videos[name].request)
            letter = DeadLetter(name, None, None, cause, "damaged", 0, "", request)
            self.dead_letter(name, cause, lambda letter=letter: letter)

    def settle_committed(self) -> None:
        """What an earlier driver committed but did not live to finish."""
        for name in self.queue.videos:
            self.settle(name, self.listing)

    def settle(self, name: str, listing: Listing) -> None:
        """Of one video. listing: by which it is in the queue."""
        if name in listing.done:
            self.tell(VideoDone(name, new=False))
        elif self.queue.videos[name].committed:
            self._publish(self.queue.videos[name])

    def work(self) -> GangWork:
        """What gangs are needed for."""
        queue, record = self.queue, self.record
        settings = worker_settings(record, self.hold.name, self.options)
        waiting = [video.request for video in queue.left if not video.rendered]
        return GangWork(self.store, settings, record.models, waiting, queue.startable, self.note)

    def note(self, message: str) -> None:
        """Tell the operator."""
        self.tell(Note(masked(message)))

    def task(
        self,
        request: RenderRequest,
        segment: Segment,
        gang: str,
        reuse: bool,
        frugal: bool = False,
        raised: Raised | None = None,
    ) -> Task:
        """What the gang is given, for a segment or finish that the queue says runs from now on."""
        if self.is_finish(segment):
            self.tell(SegmentStarted(request.id, segment.index, gang, finish=True))
            return Task(request, segment, None, True, finish=True)
        committed = self.markers[request.id]
        parent = None if segment.after is None else committed[segment.after]
        init = next((marker.init_sha256 for marker in committed.values()), None)
        last = not self.queue.videos[request.id].continued(segment.index)
        self.tell(SegmentStarted(request.id, segment.index, gang, segment.chunks))
        spec_hash = self.record.hash_of(request.id)
        return Task(request, segment, parent, last, init, reuse, frugal, spec_hash, raised=raised)

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

    def is_finish(self, segment: Segment) -> bool:
        """It is no segment, but the finish of its whole video."""
        return segment is self.queue.videos[segment.video_id].finish

    def finished(self, task: Task, marker: FinishMarker) -> None:
        """The finish is committed, by this attempt or another."""
        self.changed = True
        self.finishes.append(marker)
        self.queue.commit(task.segment)
        self.tell(VideoFinished(marker.video_id, marker.finish, len(marker.files)))

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
        video = self.queue.videos[segment.video_id]
        again = again and not (video.dead or video.withheld)
        told = segment.video_id, segment.index, rank, cause, kind, again, self.is_finish(segment)
        self.tell(SegmentFailed(*told))
        if again and aside:
            self.queue.set_aside(segment)
        else:
            self.queue.requeue(segment, not_on if again else None)

    def take_back(self, segment: Segment, cause: str, bad: Iterable[int]) -> Future[set[int]]:
        """Withdraw, in the background, what the segment can't go on from, and the segments `bad`. Until `taken_back`
        nothing of the video is started."""
        self.changed = True
        self.queue.pause(segment.video_id)

        def work() -> set[int]:
            with self.mending:
                gone = take_back(self.store, self.record, segment.video_id, segment.after, [cause], set(bad))
                outdate(self.store, self.record, list_commits(self.store))
            return gone

        return self.writer.later(work)

    def taken_back(self, segment: Segment, gone: set[int]) -> None:
        """These segments of its video are not there any more, and its own attempt is lost."""
        committed = self.markers[segment.video_id]
        lost = [committed.pop(number) for number in gone & committed.keys()]
        self.made = [marker for marker in self.made if marker not in lost]
        self.tell(SegmentsWithdrawn(segment.video_id, len(lost), sum(len(marker.chunks) for marker in lost)))
        self.queue.withdraw(segment.video_id, gone)
        self.queue.requeue(segment)
        self._publish(self.queue.videos[segment.video_id])

    def doubt(self, marker: SegmentMarker, parent: SegmentMarker | None) -> Future[str | None]:
        """What is wrong with a marker that was just committed, if anything; looked up in the background."""
        return self.writer.later(lambda: fault_of_commit(self.store, marker, parent))

    def _publish(self, video: Video) -> None:
        """What can be watched by now: the committed segments from the start on."""
        self.changed = True
        markers = self.markers[video.request.id]
        together = []
        while len(together) in markers:
            together.append(markers[len(together)])
        if len(together) == len(video.segments):  # not `video.done`: what is committed may not be for us to read
            self.writer.finish(video.request.id, together)
        elif together:
            self.writer.playlist(video.request.id, together)

    def dead_letter(
        self, video_id: str, cause: str, letter: Callable[[], DeadLetter], finish: str | None = None
    ) -> None:
        """Give the video up, once: of several segments that fail the first one is why. letter: may take its time, to
        find a log; finish: the function, where only that is given up."""
        if self.queue.videos[video_id].dead:
            return
        self.changed = True
        self.writer.dead_letter(video_id, letter)
        self.queue.dead_letter(video_id)
        self.tell(FinishDead(video_id, finish, cause) if finish else VideoDead(video_id, cause))

    def tell_finished(self) -> None:
        """Tell which videos were marked done since the last call, and what the store refused."""
        finished, refusals = self.writer.finished, self.writer.refusals
        while finished:
            self.tell(VideoDone(finished.popleft()))
        while refusals:
            self.note(f"{refusals.popleft()}; going on, and trying again in the end")

    def stopped(self, why: str, exit_code: int, left: int) -> None:
        """Tell who watches the store, if it can be told, unless another driver is at work there. left: videos."""
        with suppress(StoreError):
            self.hold.look()
        tell_stopped(self.store, Stopped(self.record.run_id, why, exit_code, left, time.time()), self.note)

    def gave_up(self, error: FlowcacheError) -> None:
        """The run ends by it. Of what the store refuses only to some the others are written to the end."""
        if isinstance(error, Refused):
            quietly("finish what is done", self._wind_up, self.note)
        self.stopped(str(error), error.exit_code, len(self.queue.left))

    def _wind_up(self) -> None:
        self.writer.drain()
        self.tell_finished()
        read_back(self.store, self.record, self.markers, None, self._unfinished())

    def _unfinished(self) -> set[str]:
        """Videos with which the run ends without having finished them, or without being asked for them."""
        return {video.request.id for video in self.queue.left} | self.outside

    def prove(self) -> Listing:
        """What the store shows when it is read back, tables written; Unproven where that is less than the run did."""
        left = self._unfinished()
        self.hold.look()
        try:
            if self.made or self.finishes:
                self.store.probe()  # whether commits were exclusive to the end
            listing = None if self.changed else self.listing
            finish = self.options.finish, self.finishes
            shown = read_back(self.store, self.record, self.markers, listing, left, self.made, *finish)
            self.hold.look()
            return shown
        except StoreError as error:
            if isinstance(error, Unproven):
                quietly("take back _SUCCESS", lambda: withdraw_success(self.store), self.note)
            unfinished = error.left if isinstance(error, Unproven) else len(left)
            self.stopped(str(error), error.exit_code, unfinished)
            raise

    def put_right(self) -> None:
        """Another driver has taken over: what follows from markers and was written last by us may be older than its
        own. To be called once the writer is closed."""
        listing = list_commits(self.store)
        touched = [name for name, found in self.markers.items() if found and name in listing.done]
        markers, faults = read_markers(self.store, listing, touched)
        for name in touched:
            if name not in faults and markers[name]:
                put_playlist(self.store, name, [markers[name][n] for n in sorted(markers[name])], done=True)
        write_tables(self.store, self.record)
