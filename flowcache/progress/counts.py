"""How far a run is, counted from its events."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flowcache.progress.events import (
    ChunkDone,
    RunBegan,
    RunEvent,
    SegmentCommitted,
    SegmentFailed,
    SegmentStarted,
    SegmentsWithdrawn,
    VideoBegan,
    VideoCancelled,
    VideoDead,
    VideoDone,
    VideoReadmitted,
    VideosJoined,
)
from flowcache.report.words import duration

LOG_EVERY = 30.0  # seconds between two summary lines of a log


@dataclass(slots=True)
class VideoCount:
    """One video: of how many segments and chunks, and how many of those chunks are committed or at least finished."""

    segments: int
    chunks: int
    committed: int
    finished: int
    state: Literal["waiting", "rendering", "done", "dead", "cancelled"]
    started: bool = False  # a segment of it, by this driver


class Counts:
    """A listener whose numbers others print. Sums are kept, so that a summary costs the same for any run."""

    def __init__(self) -> None:
        self.videos: dict[str, VideoCount] = {}
        self.total = self.made = self.computed = self.reused = 0  # chunks of the run; chunks and steps of this driver
        self.finished_videos = self.finished_chunks = 0
        self._since = 0.0

    def on(self, event: RunEvent) -> None:
        match event:
            case RunBegan():
                self._join(event.videos)
                self._since = time.monotonic()
            case VideosJoined():
                self._join(event.videos)
            case SegmentStarted():
                video = self.videos[event.video]
                video.state, video.started = "rendering", True
            case ChunkDone():
                self._count(event.video, self.videos[event.video].finished + 1)
                self.made += 1
                self.computed += event.steps_computed
                self.reused += event.steps_reused
            case SegmentCommitted() | SegmentsWithdrawn() | SegmentFailed():
                self._settle(event)
            case VideoDone():
                self.finished_videos += self.videos[event.video].state != "done"
                self.videos[event.video].state = "done"
            case VideoDead():
                self.videos[event.video].state = "dead"
            case VideoCancelled():
                self.videos[event.video].state = "cancelled"
            case VideoReadmitted():
                self.videos[event.video].state = "waiting"

    def _join(self, videos: Sequence[VideoBegan]) -> None:
        for begun in videos:
            there = begun.chunks_committed
            if before := self.videos.get(begun.video):
                self.total -= before.chunks
                self.finished_chunks -= before.finished
            state = "dead" if begun.dead else "waiting"
            self.videos[begun.video] = VideoCount(begun.segments, begun.chunks, there, there, state)
            self.total += begun.chunks
            self.finished_chunks += there

    def _settle(self, event: SegmentCommitted | SegmentsWithdrawn | SegmentFailed) -> None:
        """Only what is committed counts, when an attempt has ended."""
        video = self.videos[event.video]
        if isinstance(event, SegmentCommitted):
            video.committed += event.chunks
        elif isinstance(event, SegmentsWithdrawn):
            video.committed -= event.chunks
        self._count(event.video, video.committed)

    def _count(self, name: str, chunks: int) -> None:
        video = self.videos[name]
        self.finished_chunks += chunks - video.finished
        video.finished = chunks

    def summary(self) -> str:
        """One line: videos and chunks done, reuse rate, time left."""
        done, chunks = self.finished_videos, self.finished_chunks
        forwards = self.computed + self.reused
        reuse = f", {self.reused / forwards:.0%} of steps reused" if forwards else ""
        left = "" if not self.made or chunks >= self.total else f", about {self._left(chunks)} left"
        return f"{done}/{len(self.videos)} videos, {chunks}/{self.total} chunks{reuse}{left}"

    def _left(self, chunks: int) -> str:
        return duration((time.monotonic() - self._since) / self.made * (self.total - chunks))
