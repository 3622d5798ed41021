"""What a run tells those who watch it: plain data, one class for each thing that happens."""

from dataclasses import dataclass
from typing import Literal, Protocol

FailureKind = Literal[
    "infra", "store", "node", "memory", "damaged", "unreadable", "superseded", "abandoned", "work", "flaw"
]  # flaw: rendered again with more steps, nobody's fault; abandoned: its video was cancelled


@dataclass(frozen=True, slots=True)
class VideoBegan:
    """A video as the run finds it."""

    video: str  # its id, here and below
    segments: int
    chunks: int
    segments_committed: int  # by earlier drivers
    chunks_committed: int  # of those segments
    dead: bool


@dataclass(frozen=True, slots=True)
class RunBegan:
    """The first event of a run, but for notes."""

    run_id: str
    videos: tuple[VideoBegan, ...]


@dataclass(frozen=True, slots=True)
class SegmentStarted:
    """A gang has got the segment."""

    video: str
    segment: int  # from 0, here and below
    gang: str = ""
    chunks: int = 0  # of this segment
    finish: bool = False  # it is no segment, but the finish of the whole video


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """A chunk of a segment under way is uploaded; it counts for good once its segment is committed."""

    video: str
    segment: int
    chunk: int  # of the whole video, from 0
    steps_computed: int
    steps_reused: int


@dataclass(frozen=True, slots=True)
class SegmentCommitted:
    """The segment is in the store."""

    video: str
    segment: int
    chunks: int  # of this segment


@dataclass(frozen=True, slots=True)
class SegmentsWithdrawn:
    """What this or an earlier driver committed was found damaged, and has to be rendered again."""

    video: str
    segments: int  # so many
    chunks: int  # of those segments


@dataclass(frozen=True, slots=True)
class SegmentFailed:
    """An attempt at the segment is lost. again: it is tried once more; else its video is given up."""

    video: str
    segment: int
    rank: int
    cause: str
    kind: FailureKind
    again: bool
    finish: bool = False  # as of SegmentStarted


@dataclass(frozen=True, slots=True)
class VideoDone:
    """All of the video is in the store and marked done there, by this driver or (not new) an earlier one."""

    video: str
    new: bool = True


@dataclass(frozen=True, slots=True)
class VideoDead:
    """The video is given up: it has a dead letter."""

    video: str
    cause: str


@dataclass(frozen=True, slots=True)
class VideoFinished:
    """What the finishing function made of the video is in the store. files: so many."""

    video: str
    function: str
    files: int


@dataclass(frozen=True, slots=True)
class FinishDead:
    """The finish of the video is given up: the video is done, and has a dead letter for that."""

    video: str
    function: str
    cause: str


@dataclass(frozen=True, slots=True)
class VideoCancelled:
    """Somebody does not want the video any more: nothing more of it is started. how: with who and when; new: not told
    by an earlier driver."""

    video: str
    how: str
    new: bool = True


@dataclass(frozen=True, slots=True)
class VideoReadmitted:
    """The video is wanted again, and goes on."""

    video: str


@dataclass(frozen=True, slots=True)
class VideosJoined:
    """These came to the run while it goes on."""

    videos: tuple[VideoBegan, ...]


@dataclass(frozen=True, slots=True)
class CommandTaken:
    """Somebody told the run something. command: in words, with who and its number; outcome: obeyed or refused."""

    command: str
    outcome: str
    message: str


@dataclass(frozen=True, slots=True)
class NodesAvoided:
    """So many nodes get no work, since too much failed there. Told again and again, changed or not."""

    nodes: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the operator should know."""

    message: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: told at least once a second while gangs are there."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Nothing more is rendered, however that came."""


@dataclass(frozen=True, slots=True)
class RunOver:
    """The last event of a run. why: it ended with an error, or with videos left; "" where all was done."""

    exit_code: int
    why: str


RunEvent = (
    RunBegan
    | SegmentStarted
    | ChunkDone
    | SegmentCommitted
    | SegmentsWithdrawn
    | SegmentFailed
    | VideoDone
    | VideoDead
    | VideoFinished
    | FinishDead
    | VideoCancelled
    | VideoReadmitted
    | VideosJoined
    | CommandTaken
    | NodesAvoided
    | Note
    | Tick
    | RunEnded
    | RunOver
)


class Listener(Protocol):
    """Is told of every event, in order, in the driver's thread: who takes long holds up the run."""

    def on(self, event: RunEvent) -> None: ...


class Together:
    """Passes every event on to several listeners, in their order; silent without any."""

    def __init__(self, *listeners: Listener):
        self.listeners = listeners

    def on(self, event: RunEvent) -> None:
        for listener in self.listeners:
            listener.on(event)
