"""How far a run is, counted from its events."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flowcache.progress.events import (
    ChunkDone,
    FinishDead,
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
    VideoFinished,
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

    @property
    def unwanted(self) -> int:
        """Chunks that will not come."""
        return self.chunks - self.finished if self.state in ("dead", "cancelled") else 0


@dataclass(slots=True)
class Work:
    """What a gang renders: a segment of so many chunks, and how many of them are finished."""

    gang: str
    chunks: int
    finished: int = 0
    finish: bool = False  # it is no segment, but the finish of the video


class Counts:
    """A listener whose numbers others print. Sums are kept, so that a summary costs the same for any run."""

    def __init__(self) -> None:
        self.videos: dict[str, VideoCount] = {}
        self.total = self.made = self.computed = self.reused = 0  # chunks of the run; chunks and steps of this driver
        self.finished_videos = self.finished_chunks = 0
        self._unwanted = 0  # chunks that will not come
        self.failures = 0  # attempts that were lost
        self.finished_by = 0  # videos that a function has finished, of this driver
        self.work: dict[tuple[str, int], Work] = {}  # by video and segment, what is under way
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
                if not event.finish:
                    video.state, video.started = "rendering", True
                self.work[event.video, event.segment] = Work(event.gang, event.chunks, finish=event.finish)
            case VideoFinished() | FinishDead():
                self.finished_by += isinstance(event, VideoFinished)
                self.work.pop((event.video, self.videos[event.video].segments), None)
            case ChunkDone():
                if work := self.work.get((event.video, event.segment)):
                    work.finished += 1
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
                self._move(event.video, "dead")
            case VideoCancelled():
                self._move(event.video, "cancelled")
            case VideoReadmitted():
                self._move(event.video, "waiting")

    def _move(self, name: str, state: Literal["waiting", "dead", "cancelled"]) -> None:
        video = self.videos[name]
        self._unwanted -= video.unwanted
        video.state = state
        self._unwanted += video.unwanted

    def _join(self, videos: Sequence[VideoBegan]) -> None:
        for begun in videos:
            there = begun.chunks_committed
            if before := self.videos.get(begun.video):
                self.total -= before.chunks
                self._unwanted -= before.unwanted
                self.finished_chunks -= before.finished
            state = "dead" if begun.dead else "waiting"
            self.videos[begun.video] = video = VideoCount(begun.segments, begun.chunks, there, there, state)
            self._unwanted += video.unwanted
            self.total += begun.chunks
            self.finished_chunks += there

    def _settle(self, event: SegmentCommitted | SegmentsWithdrawn | SegmentFailed) -> None:
        """Only what is committed counts, when an attempt has ended."""
        video = self.videos[event.video]
        if not isinstance(event, SegmentsWithdrawn):
            self.work.pop((event.video, event.segment), None)
        if isinstance(event, SegmentFailed):
            self.failures += event.kind not in ("abandoned", "flaw")
        if isinstance(event, SegmentCommitted):
            video.committed += event.chunks
        elif isinstance(event, SegmentsWithdrawn):
            video.committed -= event.chunks
        self._count(event.video, video.committed)

    def _count(self, name: str, chunks: int) -> None:
        video = self.videos[name]
        self._unwanted -= video.unwanted
        self.finished_chunks += chunks - video.finished
        video.finished = chunks
        self._unwanted += video.unwanted

    def summary(self) -> str:
        """One line: videos and chunks done, reuse rate, time left."""
        done, chunks = self.finished_videos, self.finished_chunks
        forwards = self.computed + self.reused
        reuse = f", {self.reused / forwards:.0%} of steps reused" if forwards else ""
        left = "" if not self.made or not self.left else f", about {duration(self.left / self.rate)} left"
        finished = f", {self.finished_by} finished" if self.finished_by else ""
        return f"{done}/{len(self.videos)} videos, {chunks}/{self.total} chunks{finished}{reuse}{left}"

    @property
    def left(self) -> int:
        """Chunks that are still to come: none of videos that are given up or cancelled."""
        return self.total - self.finished_chunks - self._unwanted

    @property
    def rate(self) -> float:
        """Chunks a second, of this driver from its begin on."""
        return self.made / max(time.monotonic() - self._since, 1e-9)

    def place(self, video: str, segment: int) -> str:
        """In words; numbered from 0, as in keys and tables."""
        return f"segment {segment} ({self.videos[video].segments} in all)"

    def count(self, state: str) -> int:
        return sum(video.state == state for video in self.videos.values())
