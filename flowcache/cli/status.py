"""`flowcache status`."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flowcache.cli.common import Endpoint, Json, Output, open_store, out, print_json
from flowcache.errors import printable
from flowcache.report.words import duration

STATES = ("done", "running", "waiting", "partial", "dead", "cancelled")
MOVING = ("running", "dead", "partial", "waiting", "cancelled", "done")  # what a watcher sees first
SHOWN = 20  # videos in the table that is redrawn


def status(
    output: Output,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again until the run has ended.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print the run's events, from the first on, until it has ended.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.2, max=86_400, help="Seconds between two looks.")] = 5.0,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """How far a run is, read from its store alone: while it goes on, or after.

    With --watch a table that is redrawn, or lines where there is no terminal, until every video is done or dead or
    the run has stopped (deadline, SIGTERM); it then ends with the exit code of the run. So does --follow, which prints
    a line for each video that is done, dead or cancelled, each command, and each begin and end; JSON lines with --json.
    """
    from flowcache.storage.status import Watch

    looks = Watch(open_store(output, endpoint_url))
    if follow:
        follow_events(looks.store, interval, as_json)
        raise typer.Exit(looks.status().exit_code)
    if not watch:
        report = looks.status()
    elif as_json:
        report = watched(looks, interval, lambda report: None)
    elif not out.is_terminal:
        report = watched(looks, interval, Lines().show)
    else:
        with Live(console=out, auto_refresh=False) as live:
            report = watched(looks, interval, lambda report: live.update(screen_of(report), refresh=True))
    if as_json:
        print_json(asdict(report))
    elif not watch:
        out.print(table(report.videos))
        out.print(summary(report), markup=False)
        if report.commands:
            out.print(commands(report.commands))
    if watch:
        raise typer.Exit(report.exit_code)


def watched(looks: Any, interval: float, show: Callable[[Any], None]) -> Any:
    """Show the run until it has ended; its last status."""
    report = looks.status()
    show(report)
    while not report.ended:
        time.sleep(interval)
        report = looks.status()
        show(report)
    return report


def follow_events(store: Any, interval: float, as_json: bool) -> None:
    """Until the last driver has said that it ended, and all that it told is printed."""
    from flowcache.storage.events import read_events
    from flowcache.storage.orders import at_work

    seen, ended = set[str](), False
    while True:
        for event in read_events(store, seen):
            out.print(
                json.dumps(event, ensure_ascii=False) if as_json else line_of(event), markup=False, highlight=False
            )
        if ended:
            return
        holder = at_work(store)
        ended = holder is None or holder.ended is not None
        if not ended:
            time.sleep(interval)


def line_of(event: dict[str, Any]) -> str:
    from flowcache.storage.documents import utc

    at = event.get("at")
    moment = utc(at) if isinstance(at, int | float) else "?"
    rest = (f"{value}" for name, value in event.items() if name not in ("id", "event", "at", "run"))
    return printable(f"{moment} {event.get('event')}: {', '.join(rest)}".rstrip(": "))


class Lines:
    """A line for a log whenever something happened."""

    said: Any = None

    def show(self, report: Any) -> None:
        state = [report.count(name) for name in STATES], report.total("chunks")
        if state != self.said:
            out.print(f"{time.strftime('%H:%M:%S')} {summary(report)}", markup=False, highlight=False)
        self.said = state


def screen_of(report: Any) -> Group:
    videos = sorted(report.videos, key=lambda video: MOVING.index(video.state))
    more = len(videos) - SHOWN
    parts = [table(videos[:SHOWN]), *([Text(f"and {more} more")] if more > 0 else []), Text(summary(report))]
    return Group(*parts)


def table(videos: Sequence[Any]) -> Table:
    drawn = Table("video", "state", "segments", "chunks", "frames", "reused", "error", box=None)
    for video in videos:
        steps = video.steps_computed + video.steps_reused
        drawn.add_row(
            escape(video.video_id),
            video.state,
            f"{video.segments}/{video.segments_total}",
            f"{video.chunks}/{video.chunks_total}",
            f"{video.frames}/{video.frames_total}",
            f"{video.steps_reused / steps:.0%}" if steps else "-",
            escape(video.error or ""),
        )
    return drawn


def commands(told: Sequence[Any]) -> Table:
    """Pending ones, then the latest that were taken."""
    from flowcache.storage.documents import utc

    drawn = Table("command", "given (UTC)", "taken by", "outcome", box=None)
    pending, taken = [one for one in told if one.outcome is None], [one for one in told if one.outcome]
    for one in [*pending, *taken[-SHOWN:]]:
        given = utc(one.at)
        outcome = f"{one.outcome}: {one.message}" if one.outcome else "pending"
        drawn.add_row(
            *(escape(printable(text)) for text in (one.command, given, one.taken_by or "nobody yet", outcome))
        )
    return drawn


def summary(report: Any) -> str:
    """One line: states, reuse, rate, time left, and how long ago something came."""
    counts = ", ".join(f"{report.count(state)} {state}" for state in STATES if report.count(state))
    rejected = f", {report.rejected} rejected rows" if report.rejected else ""
    counts += "".join(f", {videos} finished by {name}" for name, videos in report.finished_by.items())
    counts += f", the finish of {report.unfinished} failed" if report.unfinished else ""
    chunks = f"{report.total('chunks')}/{report.total('chunks_total')} chunks"
    text = f"run {report.run_id}: {counts}{rejected}; {chunks}; {report.reuse_rate:.0%} of steps reused"
    if report.paused:
        text += f"; paused by {report.paused}"
    pending = sum(one.outcome is None for one in report.commands)
    if pending:
        text += f"; {pending} command{'s' * (pending > 1)} not taken yet"
    if report.stopped:
        text += f"; stopped: {report.stopped.why}"
    if report.rate and not report.ended:
        ago = duration(max(time.time() - report.last_commit, 0))
        text += f"; {report.rate * 60:.3g} chunks a minute, about {duration(report.seconds_left)} left"
        text += f"; last commit {ago} ago"
    return text
