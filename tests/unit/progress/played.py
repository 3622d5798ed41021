"""A short run as its listeners are told of it."""

from flowcache.progress.events import (
    ChunkDone,
    Listener,
    NodesAvoided,
    Note,
    RunBegan,
    RunEnded,
    SegmentCommitted,
    SegmentFailed,
    SegmentStarted,
    SegmentsWithdrawn,
    Tick,
    VideoBegan,
    VideoDead,
    VideoDone,
)

LONG, SHORT = VideoBegan("long", 2, 6, 0, 0, dead=False), VideoBegan("short", 1, 1, 0, 0, dead=False)
BEGAN = RunBegan("0123456789abcdef", (LONG, SHORT))
CAUSE = "OSError: s3://key:secret@host/x gone"
# Two segments of `long` are rendered, the first after a failure and again after damage; `short` is given up.
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
    Note("a note"),
    NodesAvoided(1),
    Tick(),
    RunEnded(),
)


def play(listener: Listener) -> None:
    for event in EVENTS:
        listener.on(event)
