"""Which segment runs next. Pure: no Ray, no clock, no store."""

import heapq
from collections.abc import Callable, Iterable

from flowcache.records import RenderRequest, Segment
from flowcache.storage.control import How


class Video:
    """A request with what is left of it. Chains of segments (shots that cut) are independent.

    finish: a unit of work without chunks, numbered after the segments, which can start once all of these are committed.
    """

    def __init__(
        self,
        request: RenderRequest,
        segments: tuple[Segment, ...],
        committed: Iterable[int] = (),
        dead: bool = False,
        finish: Segment | None = None,
    ):
        self.request, self.segments, self.dead, self.finish = request, segments, dead, finish
        self.units = segments if finish is None else (*segments, finish)
        self.priority = request.priority
        self.paused = False
        self.withheld: How | None = None  # somebody does not want it any more; "cancelled": nor what runs of it
        self.committed: set[int] = set(committed)
        self.running: set[int] = set()
        self.chunks_left = sum(segment.chunks for segment in segments if segment.index not in self.committed)
        self._ready = self._startable()

    def _can_start(self, segment: Segment) -> bool:
        done = self.committed
        if segment is self.finish:
            return self.rendered and segment.index not in done
        return segment.index not in done and (segment.after is None or segment.after in done)

    def _startable(self) -> list[int]:
        """Ascending: a heap."""
        return [one.index for one in self.units if one.index not in self.running and self._can_start(one)]

    @property
    def done(self) -> bool:
        return len(self.committed) == len(self.units)

    @property
    def segments_committed(self) -> int:
        return len(self.committed) - bool(self.finish and self.finish.index in self.committed)

    @property
    def rendered(self) -> bool:
        """All segments are committed, if not what comes after them."""
        return self.segments_committed == len(self.segments)

    @property
    def startable(self) -> int:
        """Segments that could start now: not done, not running, and what they continue is committed."""
        return 0 if self.dead or self.paused or self.withheld else len(self._ready)

    def continued(self, index: int) -> bool:
        """Whether the next segment goes on from this one's tail."""
        return index + 1 < len(self.segments) and self.segments[index + 1].after == index

    def start(self) -> Segment:
        """The first segment that can start, which runs from now on."""
        index = heapq.heappop(self._ready)
        self.running.add(index)
        return self.units[index]

    def commit(self, index: int) -> None:
        if index in self.committed:
            return
        self.running.discard(index)
        self.committed.add(index)
        self.chunks_left -= self.units[index].chunks
        if self.continued(index):
            heapq.heappush(self._ready, index + 1)
        if self.finish and index != self.finish.index and self.rendered:
            heapq.heappush(self._ready, self.finish.index)

    def requeue(self, index: int) -> None:
        if index in self.running:
            self.running.discard(index)
            if self._can_start(self.units[index]):  # else what it continues was withdrawn
                heapq.heappush(self._ready, index)

    def withdraw(self, indices: Iterable[int]) -> None:
        """These committed segments are not there any more, nor a finish of them."""
        gone = self.committed.intersection(indices)
        if gone and self.finish:
            self.committed.discard(self.finish.index)
        self.committed -= gone
        self.chunks_left += sum(self.segments[index].chunks for index in gone)
        self._ready = self._startable()


class SegmentQueue:
    """Highest priority first, then the longest remaining video.

    A gang keeps its model where it can, and goes on with the video whose tail it holds, unless another one is more
    urgent: of higher priority, or so long that the whole run would wait for it. So videos get done one after the
    other, and not all of them in the last hour.
    """

    def __init__(self, videos: Iterable[Video]):
        self.videos = {video.request.id: video for video in videos}
        self._elsewhere: list[tuple[str, Segment]] = []  # the node that failed it, the segment: running, for its video
        self._aside: list[Segment] = []  # running, for its video, and not startable
        self._open: set[str] = set()
        self.chunks_left = 0
        self.startable = 0  # segments that could start now
        self._levels: dict[
            int, dict[str, list[tuple[int, str]]]
        ] = {}  # priority -> model -> heap of (-chunks left, id)
        self._priorities: list[int] = []  # heap of -priority, those of `_levels`
        for video in self.videos.values():
            self._enter(video)

    @property
    def finished(self) -> bool:
        """Nothing is left to start and nothing runs."""
        return not self._open

    @property
    def left(self) -> list[Video]:
        """Videos that are neither done nor dead, in the order of the run."""
        return [video for name, video in self.videos.items() if name in self._open]

    def take(
        self, model: str | None = None, tail_of: str | None = None, gangs: int = 1, node: str | None = None
    ) -> tuple[RenderRequest, Segment] | None:
        """The next segment, marked as running; None if none can start now.

        model: what the gang has loaded; tail_of: the video that it rendered last; gangs: how many share the work;
        node: where the gang is, if it may take first what failed on another one.
        """
        for place, (failed_on, segment) in enumerate(self._elsewhere):
            if node not in (None, failed_on):
                del self._elsewhere[place]
                self.startable -= 1
                return self.videos[segment.video_id].request, segment
        best = self._best(model)
        if best is None:
            return None
        kept = self.videos.get(tail_of) if tail_of else None
        if kept and kept.startable and not self._more_urgent(best, kept, gangs):
            best = kept
        segment = best.start()
        self.startable -= 1
        self._offer(best, 0)
        return best.request, segment

    def _enter(self, video: Video) -> None:
        """The video is to be rendered, if anything of it is left."""
        if not video.done and not video.dead and not video.withheld and video.request.id not in self._open:
            self._open.add(video.request.id)
            self.chunks_left += video.chunks_left
        self._offer(video, video.startable)

    def _best(self, model: str | None) -> Video | None:
        """Of the highest priority, if possible with that model, the longest."""
        while self._priorities:
            priority = -self._priorities[0]
            level = self._levels[priority]
            tops = {name: video for name in list(level) if (video := self._top(level, name, priority))}
            if tops:
                return tops[min(tops, key=lambda name: (name != model, level[name][0]))]
            del self._levels[-heapq.heappop(self._priorities)]
        return None

    def _top(self, level: dict[str, list[tuple[int, str]]], model: str, priority: int) -> Video | None:
        """The heap's first video that can start; what no longer holds is dropped on the way."""
        heap = level[model]
        while heap:
            video = self.videos[heap[0][1]]
            if video.startable and (-heap[0][0], priority) == (video.chunks_left, video.priority):
                return video
            heapq.heappop(heap)
        del level[model]
        return None

    def _more_urgent(self, video: Video, kept: Video, gangs: int) -> bool:
        if video.priority != kept.priority:
            return video.priority > kept.priority
        return video.chunks_left > kept.chunks_left and video.chunks_left * gangs > self.chunks_left

    def _offer(self, video: Video, more: int) -> None:
        """The video stands in its heap if it can start; `more` of its segments came to be startable."""
        self.startable += more
        if not video.startable:
            return
        priority = video.priority
        if priority not in self._levels:
            heapq.heappush(self._priorities, -priority)
        heap = self._levels.setdefault(priority, {}).setdefault(video.request.model, [])
        heapq.heappush(heap, (-video.chunks_left, video.request.id))

    def commit(self, segment: Segment) -> Video:
        """The segment is in the store."""
        video = self.videos[segment.video_id]
        before, startable = video.chunks_left, video.startable
        video.commit(segment.index)
        if segment.video_id in self._open:
            self.chunks_left -= before - video.chunks_left
        self._offer(video, video.startable - startable)
        self._settle(video)
        return video

    def requeue(self, segment: Segment, not_on: str | None = None) -> None:
        """The segment's attempt failed; it may be taken again. not_on: the node that failed it, if another one shall
        try."""
        if not_on is not None:
            self._elsewhere.append((not_on, segment))
            self.startable += 1
            return
        video = self.videos[segment.video_id]
        startable = video.startable
        video.requeue(segment.index)
        self._offer(video, video.startable - startable)
        self._settle(video)

    def pause(self, video_id: str) -> None:
        """Start nothing of this video until something of it is withdrawn."""
        self.release(lambda node, segment: segment.video_id != video_id)
        video = self.videos[video_id]
        self.startable -= video.startable
        video.paused = True

    def withdraw(self, video_id: str, indices: Iterable[int]) -> None:
        """These segments, which were committed, have to be rendered again. The video goes on."""
        video = self.videos[video_id]
        before = video.chunks_left
        video.withdraw(indices)
        video.paused = False
        if video_id in self._open:
            self.chunks_left += video.chunks_left - before
        self._offer(video, video.startable)

    def set_aside(self, segment: Segment) -> None:
        """The segment's attempt failed; nobody may take it until it is resumed."""
        self._aside.append(segment)

    def resume(self, which: Callable[[Segment], bool]) -> None:
        """These may be taken again, of what was set aside."""
        back = [segment for segment in self._aside if which(segment)]
        self._aside = [segment for segment in self._aside if segment not in back]
        for segment in back:
            self.requeue(segment)

    def release(self, waits: Callable[[str, Segment], bool]) -> None:
        """Whoever comes may take the segments that need not wait for another node any longer, by (node, segment)."""
        freed = [segment for node, segment in self._elsewhere if not waits(node, segment)]
        self._elsewhere = [entry for entry in self._elsewhere if entry[1] not in freed]
        self.startable -= len(freed)
        for segment in freed:
            self.requeue(segment)

    def dead_letter(self, video_id: str) -> None:
        """Nothing more of this video is started; what runs of it may still end."""
        self._return(video_id)
        video = self.videos[video_id]
        self.startable -= video.startable
        video.dead = True
        self._settle(video)

    def withhold(self, video_id: str, how: How) -> None:
        """Nothing more of this video is started until it is readmitted; what runs of it may still end."""
        self._return(video_id)
        video = self.videos[video_id]
        self.startable -= video.startable
        video.withheld = how
        self._settle(video)

    def readmit(self, video_id: str) -> None:
        """The video goes on, where it is neither done nor dead."""
        video = self.videos[video_id]
        if video.withheld:
            video.withheld = None
            self._enter(video)

    def prioritise(self, video_id: str, priority: int) -> None:
        video = self.videos[video_id]
        video.priority = priority
        self._offer(video, 0)

    def add(self, video: Video) -> None:
        """A video that is new, or in place of one of which nothing runs."""
        before = self.videos.get(video.request.id)
        if before:
            self.withhold(before.request.id, "skipped")
        self.videos[video.request.id] = video
        self._enter(video)

    def _return(self, video_id: str) -> None:
        """What waits of the video for another node, or is set aside, waits no more."""
        self.release(lambda node, segment: segment.video_id != video_id)
        self.resume(lambda segment: segment.video_id == video_id)

    def _settle(self, video: Video) -> None:
        over = video.dead or video.withheld
        if video.request.id in self._open and (video.done or (over and not video.running)):
            self._open.discard(video.request.id)
            self.chunks_left -= video.chunks_left
