"""What Prometheus sees of a run, through Ray's metrics: each name below gets the prefix `ray_`.

Ranks count what they make, so that a node's share can be told; the driver what it hands out and what fails. The
dashboard that shows them: cluster/monitoring/grafana.json.
"""

from collections import Counter as Tally
from collections.abc import Iterable

from ray.util.metrics import Counter, Gauge

from flowcache.progress.progress import Progress
from flowcache.records import ChunkRecord, Segment
from flowcache.scheduler.queue import Video
from flowcache.storage.documents import RunRecord

STAGES = ("denoise", "decode", "encode", "upload")
STATES = ("waiting", "rendering", "done", "dead")
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


class RunMetrics(Progress):
    """Gauges and counters of the driver; those of a run that finds nothing to do, and starts no Ray, go nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self._videos = Gauge("flowcache_videos", "Videos of the run by state", ("state",))
        self._segments = Gauge(
            "flowcache_segments", "Segments of the run, waiting (queue depth) or running", ("state",)
        )
        self._committed = Counter("flowcache_committed_segments", "Segments committed by this driver")
        self._failures = Counter("flowcache_failures", "Attempts at a segment that failed", ("kind", "outcome"))
        self._avoided = Gauge("flowcache_avoided_nodes", "Nodes that get no work, since too much failed there")
        self._running: set[tuple[str, int]] = set()

    def begin(self, record: RunRecord, videos: Iterable[Video]) -> None:
        super().begin(record, videos)
        self._by_state = Tally(self.states.values())
        self._waiting = sum(len(self._open(video)) for video in self.videos.values() if not video.dead)
        self._show(*STATES)

    def _open(self, video: Video) -> list[Segment]:
        """Segments of a video that wait: for a gang, or for the one before them."""
        taken = video.committed | {index for name, index in self._running if name == video.request.id}
        return [segment for segment in video.segments if segment.index not in taken]

    def started(self, segment: Segment) -> None:
        self._move(segment.video_id, "rendering")
        super().started(segment)
        self._running.add((segment.video_id, segment.index))
        self._waiting -= 1
        self._show()

    def committed(self, segment: Segment) -> None:
        self._running.discard((segment.video_id, segment.index))
        self._committed.inc()
        self._show()

    def failed(self, segment: Segment, rank: int, cause: str, kind: str, again: bool) -> None:
        self._running.discard((segment.video_id, segment.index))
        self._waiting += self.states[segment.video_id] != "dead"
        self._failures.inc(1, {"kind": kind, "outcome": "tried again" if again else "given up"})
        self._show()

    def avoided(self, nodes: int) -> None:
        self._avoided.set(nodes)

    def done(self, video_id: str) -> None:
        self._move(video_id, "done")
        super().done(video_id)

    def dead(self, video_id: str, cause: str) -> None:
        self._waiting -= len(self._open(self.videos[video_id]))
        self._move(video_id, "dead")
        super().dead(video_id, cause)

    def _move(self, video_id: str, state: str) -> None:
        before = self.states[video_id]
        self._by_state[before] -= 1
        self._by_state[state] += 1
        self._show(before, state)

    def _show(self, *states: str) -> None:
        for state in states:
            self._videos.set(self._by_state[state], {"state": state})
        self._segments.set(self._waiting, {"state": "waiting"})
        self._segments.set(len(self._running), {"state": "running"})
