"""A short run as its listeners are told of it."""

from flowcache.progress.events import (
    ChunkDone,
    CommandTaken,
    FinishDead,
    Listener,
    NodesAvoided,
    Note,
    RunBegan,
    RunEnded,
    RunOver,
    SegmentCommitted,
    SegmentFailed,
    SegmentStarted,
    SegmentsWithdrawn,
    Tick,
    VideoBegan,
    VideoCancelled,
    VideoDead,
    VideoDone,
    VideoFinished,
    VideoReadmitted,
    VideosJoined,
)

LONG, SHORT = VideoBegan("long", 2, 6, 0, 0, dead=False), VideoBegan("short", 1, 1, 0, 0, dead=False)
THIRD = VideoBegan("third", 1, 1, 0, 0, dead=False)
BEGAN = RunBegan("0123456789abcdef", (LONG, SHORT))
CAUSE = "OSError: s3://key:secret@host/x gone"
# Two segments of `long` are rendered, the first after a failure and again after damage; `short` is given up; `third`
# comes later, and is cancelled.
EVENTS = (
    BEGAN,
    SegmentStarted("long", 0),
    SegmentFailed("long", 0, 1, CAUSE, "work", again=True),
    SegmentStarted("short", 0),
    SegmentFailed("short", 0, 1, CAUSE, "work", again=False),
    VideoDead("short", "OSError: no"),
    SegmentStarted("long", 0),
    *(ChunkDone("long", 0, chunk, 6, 2) for chunk in range(5)),
    SegmentCommitted("long", 0, 5),
    SegmentsWithdrawn("long", 1, 5),
    SegmentStarted("long", 0),
    SegmentCommitted("long", 0, 5),
    SegmentStarted("long", 1),
    ChunkDone("long", 1, 5, 6, 2),
    SegmentCommitted("long", 1, 1),
    VideoDone("long"),
    SegmentStarted("long", 2, "gang-1", finish=True),
    SegmentFailed("long", 2, 0, CAUSE, "work", again=True, finish=True),
    SegmentStarted("long", 2, "gang-1", finish=True),
    VideoFinished("long", "mine:finish", 2),
    FinishDead("long", "mine:other", CAUSE),
    Note("a note"),
    NodesAvoided(1),
    CommandTaken("command 1 (cancel third) of ann@desk", "obeyed", "cancelled: third"),
    VideosJoined((THIRD,)),
    SegmentStarted("third", 0, "gang-1", 1),
    VideoCancelled("third", "cancelled by ann@desk"),
    SegmentFailed("third", 0, 0, "the video was cancelled", "abandoned", again=False),
    VideoReadmitted("third"),
    VideoCancelled("third", "skipped by ann@desk"),
    Tick(),
    RunEnded(),
    RunOver(3, ""),
)


def play(listener: Listener) -> None:
    for event in EVENTS:
        listener.on(event)
