"""What the store holds damaged of a video is withdrawn and rendered again, by the driver itself and not for ever."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future

from flowcache.progress.events import SegmentFailed
from flowcache.scheduler.ledger import Ledger
from flowcache.scheduler.protocols import Gang, GangFailure
from flowcache.storage.documents import SegmentMarker
from flowcache.worker.task import Task

MENDS = 3  # times that something of a video is withdrawn before the video is given up

Fail = Callable[[Task, GangFailure, Gang], None]


class Mending:
    """count: counts an attempt as failed; give_up: makes the dead letter."""

    def __init__(self, ledger: Ledger, count: Fail, give_up: Fail):
        self.ledger, self.count, self.give_up = ledger, count, give_up
        self.mended: Counter[str] = Counter()  # by video
        self._withdrawals: list[tuple[Future[set[int]], Task]] = []
        self._looks: list[tuple[Future[str | None], Task, SegmentMarker, Gang]] = []

    def damaged(self, task: Task, failure: GangFailure, gang: Gang, bad: frozenset[int] = frozenset()) -> None:
        """The attempt can't go on from what is there, or was committed as one of the segments `bad`."""
        segment, video = task.segment, self.ledger.queue.videos[task.segment.video_id]
        if not self.ledger.markers[segment.video_id] and len(video.running) > 1:
            return self.count(task, failure, gang)  # an init segment that may be another segment's under way
        self.mended[segment.video_id] += 1
        if video.dead or self.mended[segment.video_id] > MENDS:
            return self.give_up(task, failure, gang)
        self.ledger.tell(SegmentFailed(segment.video_id, segment.index, failure.rank, failure.cause, "damaged", True))
        self._withdrawals.append((self.ledger.take_back(segment, failure.cause, bad), task))

    def committed(self, task: Task, marker: SegmentMarker, gang: Gang) -> None:
        """Of a video of which something was withdrawn a marker is looked at: it may be that of an attempt which went on
        from what is not there any more, or whose objects `gc` took while another one had won."""
        if marker.video_id in self.mended:
            self._looks.append((self.ledger.doubt(marker, task.parent), task, marker, gang))
        else:
            self.ledger.committed(marker)

    def settle(self) -> None:
        """Go on with what is withdrawn or looked at by now."""
        withdrawals, looks, self._withdrawals, self._looks = self._withdrawals, self._looks, [], []
        for withdrawal, task in withdrawals:
            if withdrawal.done():
                self.ledger.taken_back(task.segment, withdrawal.result())
            else:
                self._withdrawals.append((withdrawal, task))
        for look, task, marker, gang in looks:
            if not look.done():
                self._looks.append((look, task, marker, gang))
            elif doubt := look.result():
                self.damaged(task, GangFailure(0, "damaged", doubt), gang, frozenset({marker.segment}))
            else:
                self.ledger.committed(marker)
