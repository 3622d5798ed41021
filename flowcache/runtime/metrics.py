"""What Prometheus sees of a run, through Ray's metrics: each name below gets the prefix `ray_`.

Ranks count what they make, so that a node's share can be told; the driver what it hands out and what fails. The
dashboard that shows them: cluster/monitoring/grafana.json.
"""

from collections import Counter as Tally
from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge

from flowcache.progress.events import (
    NodesAvoided,
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
from flowcache.records import ChunkRecord

STAGES = ("denoise", "decode", "encode", "upload")
STATES = ("waiting", "rendering", "done", "dead", "cancelled")
OVER = ("dead", "cancelled")
OF_WORK = ("model", "policy", "gang")


class WorkMetrics:
    """Counters of rank 0 of a gang."""

    def __init__(self, gang: str):
        self.gang = gang
        self.chunks = Counter("flowcache_chunks", "Chunks finished and uploaded", OF_WORK)
        self.frames = Counter("flowcache_frames", "Video frames of those chunks", OF_WORK)
        self.steps = Counter("flowcache_steps", "Transformer forwards of a chunk", (*OF_WORK, "decision"))
        self.seconds = Counter("flowcache_stage_seconds", "Seconds spent on those chunks", (*OF_WORK, "stage"))

    def chunk(self, model: str, policy: str, record: ChunkRecord) -> None:
        tags = {"model": model, "policy": policy, "gang": self.gang}
        self.chunks.inc(1, tags)
        self.frames.inc(record.frames, tags)
        for decision, steps in (("computed", record.steps_computed), ("reused", record.steps_reused)):
            if steps:  # a counter takes no zero
                self.steps.inc(steps, {**tags, "decision": decision})
        for stage in STAGES:
            seconds = getattr(record, f"{stage}_seconds")
            if seconds > 0:
                self.seconds.inc(seconds, {**tags, "stage": stage})


class RunMetrics:
    """A listener with gauges and counters of the driver; those of a run that finds nothing to do, and starts no Ray, go
    nowhere."""

    def __init__(self) -> None:
        self._videos = Gauge("flowcache_videos", "Videos of the run by state", ("state",))
        self._segments = Gauge(
            "flowcache_segments", "Segments of the run, waiting (queue depth) or running", ("state",)
        )
        self._committed = Counter("flowcache_committed_segments", "Segments committed by this driver")
        self._failures = Counter("flowcache_failures", "Attempts at a segment that failed", ("kind", "outcome"))
        self._avoided = Gauge("flowcache_avoided_nodes", "Nodes that get no work, since too much failed there")
        self._states: dict[str, str] = {}  # by video
        self._left: dict[str, int] = {}  # by video: segments that are not committed
        self._running: set[tuple[str, int]] = set()  # (video, segment)
        self._by_state: Tally[str] = Tally()
        self._waiting = 0  # segments of all videos that are not dead

    def on(self, event: RunEvent) -> None:
        match event:
            case RunBegan() | VideosJoined():
                self._join(event.videos)
            case SegmentStarted(finish=True) | SegmentFailed(finish=True):
                pass  # no segment: its video is done and stays so
            case SegmentStarted():
                self._running.add((event.video, event.segment))
                self._waiting -= 1
                self._move(event.video, "rendering")
            case SegmentCommitted():
                self._running.discard((event.video, event.segment))
                self._left[event.video] -= 1
                self._committed.inc()
                self._show()
            case SegmentsWithdrawn():
                self._left[event.video] += event.segments
                self._waiting += event.segments
                self._show()
            case SegmentFailed():
                self._running.discard((event.video, event.segment))
                self._waiting += self._states[event.video] not in OVER
                if event.kind != "abandoned":
                    self._failures.inc(1, {"kind": event.kind, "outcome": "tried again" if event.again else "given up"})
                self._show()
            case VideoDone():
                self._move(event.video, "done")
            case VideoDead() if self._states[event.video] != "dead":  # each of its segments may give it up
                self._end(event.video, "dead")
            case VideoCancelled() if self._states[event.video] not in OVER:
                self._end(event.video, "cancelled")
            case VideoReadmitted():
                self._waiting += self._waits(event.video)
                self._move(event.video, "waiting")
            case NodesAvoided():
                self._avoided.set(event.nodes)

    def _join(self, videos: Sequence[VideoBegan]) -> None:
        for begun in videos:
            before = self._states.get(begun.video)
            if before:  # its row was corrected, and nothing of it runs
                self._by_state[before] -= 1
                self._waiting -= 0 if before in OVER else self._left[begun.video]
            self._states[begun.video] = state = "dead" if begun.dead else "waiting"
            self._left[begun.video] = begun.segments - begun.segments_committed
            self._waiting += 0 if begun.dead else self._left[begun.video]
            self._by_state[state] += 1
        self._show(*STATES)

    def _waits(self, video: str) -> int:
        """Segments of it that neither run nor are committed."""
        return self._left[video] - sum(name == video for name, _ in self._running)

    def _end(self, video: str, state: str) -> None:
        if self._states[video] not in OVER:
            self._waiting -= self._waits(video)
        self._move(video, state)

    def _move(self, video: str, state: str) -> None:
        before = self._states[video]
        self._states[video] = state
        self._by_state[before] -= 1
        self._by_state[state] += 1
        self._show(before, state)

    def _show(self, *states: str) -> None:
        for state in states:
            self._videos.set(self._by_state[state], {"state": state})
        self._segments.set(self._waiting, {"state": "waiting"})
        self._segments.set(len(self._running), {"state": "running"})
