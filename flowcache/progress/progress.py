"""What a person sees of a run: a live table on a terminal, plain lines in a log."""

import heapq
import sys
import time
from collections.abc import Iterable

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flowcache.records import ChunkRecord, Segment
from flowcache.report.words import duration
from flowcache.scheduler.queue import Video
from flowcache.storage.documents import RunRecord

SHOWN = 20  # videos in the live table: those that move come first
DRAW_EVERY = 0.25  # seconds between two drawings of the live table
LOG_EVERY = 30.0  # seconds between two summary lines of a log


class Progress:
    """Counts what happens. The base class is silent; its counters are what the others print."""

    def __init__(self) -> None:
        self.videos: dict[str, Video] = {}
        self.states: dict[str, str] = {}
        self.chunks: dict[str, int] = {}  # finished chunks by video, this run's and earlier ones
        self.total = self.made = self.computed = self.reused = 0
        self.finished_videos = self.finished_chunks = 0  # sums, so that a summary costs the same for any run

    def begin(self, record: RunRecord, videos: Iterable[Video]) -> None:
        self.videos = {video.request.id: video for video in videos}
        self.total = sum(segment.chunks for video in self.videos.values() for segment in video.segments)
        for name, video in self.videos.items():
            self.states[name] = "dead" if video.dead else "waiting"
            self._count(name, sum(segment.chunks for segment in video.segments) - video.chunks_left)
        self.since = time.monotonic()

    def started(self, segment: Segment) -> None:
        self.states[segment.video_id] = "rendering"

    def chunk(self, segment: Segment, record: ChunkRecord) -> None:
        self._count(segment.video_id, self.chunks[segment.video_id] + 1)
        self.made += 1
        self.computed += record.steps_computed
        self.reused += record.steps_reused

    def committed(self, segment: Segment) -> None:
        self._recount(segment.video_id)

    def failed(self, segment: Segment, rank: int, cause: str, kind: str, again: bool) -> None:
        """kind: "flaw", or of the GangFailure."""
        self._recount(segment.video_id)

    def avoided(self, nodes: int) -> None:
        """So many nodes get no work, since too much failed there."""

    def _recount(self, video_id: str) -> None:
        """Only what is committed counts, when an attempt has ended."""
        video = self.videos[video_id]
        self._count(video_id, sum(s.chunks for s in video.segments if s.index in video.committed))

    def _count(self, video_id: str, chunks: int) -> None:
        self.finished_chunks += chunks - self.chunks.get(video_id, 0)
        self.chunks[video_id] = chunks

    def done(self, video_id: str) -> None:
        self.finished_videos += self.states[video_id] != "done"
        self.states[video_id] = "done"

    def dead(self, video_id: str, cause: str) -> None:
        self.states[video_id] = "dead"

    def note(self, message: str) -> None:
        """Something that the operator should know."""

    def tick(self) -> None:
        """Called at least once a second while the run goes on."""

    def close(self) -> None:
        """The run is over, however it ended."""

    def summary(self) -> str:
        """One line: videos and chunks done, reuse rate, time left."""
        done, chunks = self.finished_videos, self.finished_chunks
        forwards = self.computed + self.reused
        reuse = f", {self.reused / forwards:.0%} of steps reused" if forwards else ""
        left = "" if not self.made or chunks >= self.total else f", about {self._left(chunks)} left"
        return f"{done}/{len(self.states)} videos, {chunks}/{self.total} chunks{reuse}{left}"

    def _left(self, chunks: int) -> str:
        seconds = (time.monotonic() - self.since) / self.made * (self.total - chunks)
        return duration(seconds)


class LogProgress(Progress):
    """A line for each event that matters, and a summary now and then."""

    def __init__(self, stream=None) -> None:
        super().__init__()
        self._stream = stream or sys.stderr
        self._spoke = time.monotonic()

    def note(self, message: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {message}", file=self._stream, flush=True)

    def begin(self, record: RunRecord, videos: Iterable[Video]) -> None:
        super().begin(record, videos)
        self.note(f"run {record.run_id}: {self.summary()}")

    def committed(self, segment: Segment) -> None:
        super().committed(segment)
        video = self.videos[segment.video_id]
        self.note(
            f"{segment.video_id}: segment {segment.index + 1} of {len(video.segments)} committed; {self.summary()}"
        )

    def failed(self, segment: Segment, rank: int, cause: str, kind: str, again: bool) -> None:
        super().failed(segment, rank, cause, kind, again)
        then = "trying again" if again else "giving up"
        self.note(f"{segment.video_id}: segment {segment.index} failed on rank {rank}: {cause}; {then}")

    def done(self, video_id: str) -> None:
        if self.states.get(video_id) == "rendering":
            self.note(f"{video_id}: done")
        super().done(video_id)

    def dead(self, video_id: str, cause: str) -> None:
        super().dead(video_id, cause)
        self.note(f"{video_id}: dead-lettered: {cause}")

    def tick(self) -> None:
        if time.monotonic() - self._spoke > LOG_EVERY:
            self._spoke = time.monotonic()
            self.note(self.summary())


class LiveProgress(Progress):
    """A table that is redrawn in place, with a bar for each video."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.live = Live(console=console, refresh_per_second=4, transient=False)
        self._drawn = 0.0

    def begin(self, record: RunRecord, videos: Iterable[Video]) -> None:
        super().begin(record, videos)
        self.live.start()
        self._draw()

    def note(self, message: str) -> None:
        self.live.console.print(message, markup=False, highlight=False)

    def failed(self, segment: Segment, rank: int, cause: str, kind: str, again: bool) -> None:
        super().failed(segment, rank, cause, kind, again)
        then = "trying again" if again else "giving up"
        self.note(f"{segment.video_id} segment {segment.index}, rank {rank}: {cause}; {then}")

    def tick(self) -> None:
        if time.monotonic() - self._drawn > DRAW_EVERY:
            self._draw()

    def close(self) -> None:
        self._draw()
        self.live.stop()

    def _draw(self) -> None:
        self.live.update(Group(self._table(), Text(self.summary())))
        self._drawn = time.monotonic()

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        order = {"rendering": 0, "dead": 1, "waiting": 2, "done": 3}
        names = heapq.nsmallest(SHOWN, self.states, key=lambda name: (order[self.states[name]], name))
        for name in sorted(names):
            total = sum(segment.chunks for segment in self.videos[name].segments)
            bar = ProgressBar(total=total, completed=self.chunks[name], width=30)
            table.add_row(escape(name), self.states[name], bar, f"{self.chunks[name]}/{total} chunks")
        if len(self.states) > SHOWN:
            table.add_row(f"and {len(self.states) - SHOWN} more", "", "", "")
        return table


class Together(Progress):
    """Tells several listeners of each event, in order."""

    def __init__(self, *listeners: Progress) -> None:
        super().__init__()
        self.listeners = listeners

    def begin(self, record: RunRecord, videos: Iterable[Video]) -> None:
        videos = list(videos)
        for listener in self.listeners:
            listener.begin(record, videos)

    def started(self, segment: Segment) -> None:
        for listener in self.listeners:
            listener.started(segment)

    def chunk(self, segment: Segment, record: ChunkRecord) -> None:
        for listener in self.listeners:
            listener.chunk(segment, record)

    def committed(self, segment: Segment) -> None:
        for listener in self.listeners:
            listener.committed(segment)

    def failed(self, segment: Segment, rank: int, cause: str, kind: str, again: bool) -> None:
        for listener in self.listeners:
            listener.failed(segment, rank, cause, kind, again)

    def avoided(self, nodes: int) -> None:
        for listener in self.listeners:
            listener.avoided(nodes)

    def done(self, video_id: str) -> None:
        for listener in self.listeners:
            listener.done(video_id)

    def dead(self, video_id: str, cause: str) -> None:
        for listener in self.listeners:
            listener.dead(video_id, cause)

    def note(self, message: str) -> None:
        for listener in self.listeners:
            listener.note(message)

    def tick(self) -> None:
        for listener in self.listeners:
            listener.tick()

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()


def progress_for(console: Console) -> Progress:
    """Live on a terminal, lines otherwise."""
    return LiveProgress(console) if console.is_terminal else LogProgress()
