"""Which segment runs next. Pure: no Ray, no clock, no store."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from flowcache.records import RenderRequest, Segment


@dataclass
class Video:
    """A request with what is left of it. Chains of segments (shots that cut) are independent."""

    request: RenderRequest
    segments: tuple[Segment, ...]
    committed: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    dead: bool = False

    @property
    def done(self) -> bool:
        return len(self.committed) == len(self.segments)

    @property
    def chunks_left(self) -> int:
        return sum(segment.chunks for segment in self.segments if segment.index not in self.committed)

    def ready(self) -> list[Segment]:
        """Segments that could start now: not done, not running, and what they continue is committed."""
        return [
            segment
            for segment in self.segments
            if segment.index not in self.committed | self.running
            and (segment.after is None or segment.after in self.committed)
        ]


class SegmentQueue:
    """Highest priority first, then the longest remaining video; a gang keeps its model where it can."""

    def __init__(self, videos: Iterable[Video]):
        self.videos = {video.request.id: video for video in videos}
        self._open = {name for name, video in self.videos.items() if not video.done and not video.dead}

    @property
    def finished(self) -> bool:
        """Nothing is left to start and nothing runs."""
        return not self._open

    def take(self, model: str | None = None) -> tuple[RenderRequest, Segment] | None:
        """The next segment, marked as running; None if none can start now. `model`: what the gang has loaded."""
        best = None
        for name in self._open:
            video = self.videos[name]
            request = video.request
            rank = (-request.priority, request.model != model, -video.chunks_left, request.id)
            if (best is None or rank < best[0]) and not video.dead and video.ready():
                best = rank, video
        if best is None:
            return None
        video = best[1]
        segment = video.ready()[0]
        video.running.add(segment.index)
        return video.request, segment

    def commit(self, segment: Segment) -> Video:
        """The segment is in the store."""
        video = self.videos[segment.video_id]
        video.running.discard(segment.index)
        video.committed.add(segment.index)
        self._settle(video)
        return video

    def put_back(self, segment: Segment) -> None:
        """The segment's attempt failed; it may be taken again."""
        video = self.videos[segment.video_id]
        video.running.discard(segment.index)
        self._settle(video)

    def bury(self, video_id: str) -> None:
        """Nothing more of this video is started; what runs of it may still end."""
        video = self.videos[video_id]
        video.dead = True
        self._settle(video)

    def _settle(self, video: Video) -> None:
        if video.done or (video.dead and not video.running):
            self._open.discard(video.request.id)
