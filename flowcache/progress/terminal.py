"""What a person sees of a run: a live table on a terminal, plain lines in a log."""

import heapq
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flowcache.errors import printable
from flowcache.progress.counts import LOG_EVERY, Counts
from flowcache.progress.events import (
    CommandTaken,
    FinishDead,
    Listener,
    Note,
    RunBegan,
    RunEnded,
    RunEvent,
    SegmentCommitted,
    SegmentFailed,
    SegmentsWithdrawn,
    Tick,
    Together,
    VideoCancelled,
    VideoDead,
    VideoDone,
    VideoFinished,
    VideosJoined,
)
from flowcache.progress.json_lines import JsonProgress

How = Literal["auto", "bar", "plain", "json", "quiet"]
SHOWN = 20  # videos in the live table: those that move come first
DRAW_EVERY = 0.25  # seconds between two drawings of the live table
ORDER = {"rendering": 0, "dead": 1, "waiting": 2, "cancelled": 3, "done": 4}


def progress_for(console: Console, how: How = "auto") -> Listener:
    """auto: bars on a terminal, lines otherwise; quiet: nothing but what the run ends with."""
    if how == "auto":
        how = "bar" if console.is_terminal else "plain"
    kinds: dict[How, Callable[[], Listener]] = {
        "bar": lambda: LiveProgress(console),
        "plain": LogProgress,
        "json": JsonProgress,
        "quiet": Together,
    }
    return WhileTaken(kinds[how]())


class WhileTaken:
    """Tells a person through `listener`. What nobody takes (a full disk, a closed terminal or pipe) is left unsaid, and
    the run goes on."""

    def __init__(self, listener: Listener):
        self.listener = listener

    def on(self, event: RunEvent) -> None:
        with suppress(OSError):
            self.listener.on(event)


class LogProgress:
    """A line for each event that matters, and a summary now and then."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.counts = Counts()
        self._stream = stream or sys.stderr
        self._spoke = time.monotonic()

    def on(self, event: RunEvent) -> None:
        self.counts.on(event)
        line = self._line(event)
        if line is not None:
            print(f"{time.strftime('%H:%M:%S')} {printable(line)}", file=self._stream, flush=True)

    def _line(self, event: RunEvent) -> str | None:
        match event:
            case RunBegan():
                return f"run {event.run_id}: {self.counts.summary()}"
            case Note():
                return event.message
            case SegmentCommitted():
                place = self.counts.place(event.video, event.segment)
                return f"{event.video}: {place} committed; {self.counts.summary()}"
            case SegmentsWithdrawn():
                return withdrawn(event)
            case SegmentFailed():
                return f"{event.video}: {failed(event)}"
            case VideoDone() if self.counts.videos[event.video].started:
                return f"{event.video}: done"
            case VideoDead():
                return f"{event.video}: dead-lettered: {event.cause}"
            case VideoFinished():
                return f"{event.video}: {finished(event)}"
            case FinishDead():
                return f"{event.video}: its finish is given up: {event.cause}"
            case VideoCancelled():
                return f"{event.video}: {event.how}"
            case VideosJoined() if event.videos:
                return f"{len(event.videos)} videos came; {self.counts.summary()}"
            case CommandTaken():
                return f"{event.command}: {event.outcome}: {event.message}"
            case Tick() if time.monotonic() - self._spoke > LOG_EVERY:
                self._spoke = time.monotonic()
                return self.counts.summary()
        return None


class LiveProgress:
    """Redrawn in place: a bar for the run, a line for each gang, and a bar for each video."""

    def __init__(self, console: Console) -> None:
        self.counts = Counts()
        self.live = Live(console=console, refresh_per_second=4, transient=False)
        self._drawn = 0.0

    def on(self, event: RunEvent) -> None:
        self.counts.on(event)
        match event:
            case RunBegan():
                self.live.start()
                self._draw()
            case Note():
                self._print(event.message)
            case SegmentsWithdrawn():
                self._print(withdrawn(event))
            case SegmentFailed():
                self._print(f"{event.video}: {failed(event)}")
            case FinishDead():
                self._print(f"{event.video}: its finish is given up: {event.cause}")
            case CommandTaken():
                self._print(f"{event.command}: {event.outcome}: {event.message}")
            case Tick() if time.monotonic() - self._drawn > DRAW_EVERY:
                self._draw()
            case RunEnded():
                self._draw()
                self.live.stop()

    def _print(self, message: str) -> None:
        self.live.console.print(printable(message), markup=False, highlight=False)

    def _draw(self) -> None:
        self.live.update(Group(self._table(), self._gangs(), self._run()))
        self._drawn = time.monotonic()

    def _run(self) -> Table:
        counts, line = self.counts, Table.grid(padding=(0, 2))
        parts = [counts.summary()]
        parts += [f"{counts.rate * 60:.3g} chunks a minute"] if counts.made else []
        parts += [f"{counts.failures} attempts failed"] if counts.failures else []
        parts += [f"{number} {state}" for state in ("dead", "cancelled") if (number := counts.count(state))]
        bar = ProgressBar(total=max(counts.total, 1), completed=counts.finished_chunks, width=30)
        line.add_row(bar, Text(", ".join(parts)))
        return line

    def _gangs(self) -> Table:
        table = Table.grid(padding=(0, 2))
        work = sorted(self.counts.work.items(), key=lambda one: one[1].gang)
        for (video, segment), one in work[:SHOWN]:
            place = self.counts.place(video, segment)
            told = (place, f"{one.finished}/{one.chunks} chunks of it") if not one.finish else ("its finish", "")
            table.add_row(one.gang, escape(video), *told)
        if len(work) > SHOWN:
            table.add_row(f"and {len(work) - SHOWN} more gangs", "", "", "")
        return table

    def _table(self) -> Table:
        table, videos = Table.grid(padding=(0, 2)), self.counts.videos
        for name in sorted(heapq.nsmallest(SHOWN, videos, key=lambda name: (ORDER[videos[name].state], name))):
            video = videos[name]
            bar = ProgressBar(total=video.chunks, completed=video.finished, width=30)
            table.add_row(escape(name), video.state, bar, f"{video.finished}/{video.chunks} chunks")
        if len(videos) > SHOWN:
            table.add_row(f"and {len(videos) - SHOWN} more", "", "", "")
        return table


def withdrawn(event: SegmentsWithdrawn) -> str:
    """0: what is damaged is no segment's own (an init segment), so that nothing had to give way."""
    if not event.segments:
        return f"{event.video}: no segment had to be withdrawn; it is rendered again"
    return f"{event.video}: {event.segments} damaged segments were withdrawn, and are rendered again"


def finished(event: VideoFinished) -> str:
    return f"finished by {event.function}, {event.files} file{'s' * (event.files != 1)}"


def failed(event: SegmentFailed) -> str:
    what = "its finish" if event.finish else f"segment {event.segment}"
    if event.kind == "abandoned":
        return f"{what} was ended: {event.cause}"
    then = "trying again" if event.again else "giving up"
    return f"{what} failed on rank {event.rank}: {event.cause}; {then}"
