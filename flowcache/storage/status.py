"""How far a run is, from the store alone: no media is read and no Ray is asked."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flowcache.storage import layout
from flowcache.storage.commits import Commits, read_commits, read_stopped
from flowcache.storage.control import Command, Log, Taken, read_log
from flowcache.storage.documents import RunRecord, SegmentMarker, Stopped
from flowcache.storage.known import known_markers
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import read_run

RECENT = 500  # commits

State = Literal["waiting", "running", "done", "partial", "dead", "cancelled"]
OVER: tuple[State, ...] = ("done", "dead", "cancelled")  # nothing more comes of such a video


@dataclass(frozen=True)
class VideoStatus:
    """`running`: some chunks are committed; `partial`: so it was when the driver ended; `dead`: given up;
    `cancelled`: somebody wants it no more, as `error` says."""

    video_id: str
    state: State
    segments: int  # committed
    segments_total: int
    chunks: int  # committed
    chunks_total: int
    frames: int  # committed
    frames_total: int
    steps_computed: int
    steps_reused: int
    playlist: str | None  # key, where there is something to play
    error: str | None
    finished: tuple[str, ...] = ()  # functions whose finish of it is committed
    unfinished: bool = False  # it is done and its finish failed for good, as `error` says


@dataclass(frozen=True)
class Told:
    """A command to the run, and what became of it: the last four are None until a driver has taken it."""

    number: int
    command: str
    by: str  # user@host
    at: float  # unix seconds
    taken_by: str | None  # the driver
    taken_at: float | None
    outcome: str | None  # obeyed or refused
    message: str | None


@dataclass(frozen=True)
class StatusReport:
    run_id: str
    created: float  # unix seconds
    finished: bool  # _SUCCESS is there
    stopped: Stopped | None  # the last driver ended with videos left, and no other is at work
    videos: tuple[VideoStatus, ...]  # in the run's order
    rejected: int  # manifest rows that were left out
    last_commit: float | None  # unix seconds
    rate: float | None  # chunks a second, by the latest commits; None before the first
    seconds_left: float | None  # at that rate, for all videos that are wanted and not dead
    paused: str | None = None  # the command by which no segment is started
    commands: tuple[Told, ...] = ()

    @property
    def ended(self) -> bool:
        """Nothing more will come, unless a driver is started again."""
        return self.finished or self.stopped is not None or all(video.state in OVER for video in self.videos)

    def count(self, state: State) -> int:
        return sum(video.state == state for video in self.videos)

    def total(self, field: str) -> int:
        """Sum of a numeric field of VideoStatus over all videos."""
        return sum(getattr(video, field) for video in self.videos)

    @property
    def exit_code(self) -> int:
        """What the run ended with, if it has ended."""
        return (
            self.stopped.exit_code
            if self.stopped
            else 3
            if self.count("dead") or self.rejected or self.unfinished
            else 0
        )

    @property
    def unfinished(self) -> int:
        """Videos whose finish failed for good."""
        return sum(video.unfinished for video in self.videos)

    @property
    def finished_by(self) -> dict[str, int]:
        """Finishing function -> videos that it has finished."""
        return dict(sorted(Counter(name for video in self.videos for name in video.finished).items()))

    @property
    def reuse_rate(self) -> float:
        """Share of the transformer forwards that the cache saved, 0..1."""
        computed, reused = self.total("steps_computed"), self.total("steps_reused")
        return reused / (computed + reused) if computed + reused else 0.0


class Watch:
    """The run's progress, as often as wanted: what never changes (generations of the run, markers, commands) is read
    once, of markers many in the tables."""

    def __init__(self, store: Store):
        """StoreError where the root holds no run."""
        self.store, self.run = store, read_run(store)
        self.known = known_markers(store, self.run)  # by key
        self._told: dict[str, Command | Taken] = {}  # by key

    def status(self) -> StatusReport:
        finished = self.store.exists(layout.SUCCESS)  # before the commits: they only grow
        stopped = read_stopped(self.store)
        if self.store.exists(layout.generation_key(self.run.run_id, (len(self.run.grown) or 1) + 1)):
            self.run = read_run(self.store)
        log = read_log(self.store, self._told)
        return status_of(self.run, read_commits(self.store, self.known, log), finished, stopped, log)


def status(store: Store) -> StatusReport:
    """The run's progress; StoreError where the root holds no run."""
    return Watch(store).status()


def status_of(
    run: RunRecord, commits: Commits, finished: bool, stopped: Stopped | None, log: Log | None = None
) -> StatusReport:
    log = log or Log()
    over = finished or stopped is not None
    videos = tuple(video_status(run, request["id"], commits, over) for request in run.requests)
    rejected = sum({(each["file"], each["row"]): each.get("rows", 1) for each in run.rejected}.values())
    markers = [marker for found in (commits.markers, commits.beyond) for each in found.values() for marker in each]
    rate = chunk_rate(markers)
    waited_for = [video for video in videos if video.state not in OVER]
    left = sum(video.chunks_total - video.chunks for video in waited_for)
    return StatusReport(
        run_id=run.run_id,
        created=run.created,
        finished=finished,
        stopped=stopped,
        videos=videos,
        rejected=rejected,
        last_commit=max((marker.finished for marker in markers), default=None),
        rate=rate,
        seconds_left=left / rate if rate else None,
        paused=str(log.paused) if log.paused else None,
        commands=tuple(told(command, log.taken.get(command.number)) for command in log.commands),
    )


def told(command: Command, taken: Taken | None) -> Told:
    given = command.number, str(command), command.by, command.at
    if taken is None:
        return Told(*given, None, None, None, None)
    return Told(*given, taken.by, taken.at, taken.outcome, "; ".join([taken.message, *taken.problems]))


def chunk_rate(markers: Sequence[SegmentMarker]) -> float | None:
    """Chunks a second over the latest RECENT commits. Times in which no segment was under way do not count: the
    run may have been stopped for a day."""
    ordered = sorted(markers, key=lambda marker: marker.finished)
    latest = ordered[-RECENT:]
    begin = ordered[-RECENT - 1].finished if len(ordered) > RECENT else float("-inf")
    busy, until = 0.0, begin
    for marker in sorted(latest, key=lambda marker: marker.started):
        busy += max(marker.finished - max(marker.started, until), 0.0)
        until = max(until, marker.finished)
    return sum(len(marker.chunks) for marker in latest) / busy if busy else None


def video_status(run: RunRecord, video_id: str, commits: Commits, over: bool) -> VideoStatus:
    """over: no driver is at work."""
    markers = commits.all(video_id)
    chunks = [chunk for marker in markers for chunk in marker.chunks]
    letter, withheld = commits.dead_letters.get(video_id), commits.withheld.get(video_id)
    planned = run.plan["videos"].get(video_id, {"segments": 0, "chunks": 0, "frames": 0})
    if video_id in commits.done:
        state: State = "done"
    elif letter:
        state = "dead"
    elif withheld:
        state = "cancelled"
    elif chunks:
        state = "partial" if over else "running"
    else:
        state = "waiting"
    why = letter.cause if letter else withheld and str(withheld)
    unfinished = state == "done" and letter is not None and letter.kind == "finish"
    return VideoStatus(
        video_id=video_id,
        state=state,
        segments=len(markers),
        segments_total=planned["segments"],
        chunks=len(chunks),
        chunks_total=planned["chunks"],
        frames=sum(chunk.frames for chunk in chunks),
        frames_total=planned["frames"],
        steps_computed=sum(chunk.steps_computed for chunk in chunks),
        steps_reused=sum(chunk.steps_reused for chunk in chunks),
        playlist=layout.playlist_key(video_id) if commits.markers.get(video_id) else None,
        error=commits.damaged.get(video_id) or (why if state != "done" or unfinished else None),
        finished=tuple(sorted(commits.finished.get(video_id, ()))),
        unfinished=unfinished,
    )
