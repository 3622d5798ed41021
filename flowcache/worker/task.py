"""What a rank is told, and what it answers: plain data that passes between the driver and its gangs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowcache.records import ChunkRecord, RenderRequest, Segment
from flowcache.storage.documents import SegmentMarker


@dataclass(frozen=True)
class WorkerSettings:
    """What every rank of a run shares. `threads`: torch threads; `timeout`: seconds a collective may take.

    `models`: where a checkpoint lies, by the name that requests use (absolute: a worker has a folder of its
    own); `sizes`: by model, (width, height) of the run's largest frames.
    """

    run_id: str
    spec_hash: str
    device: str = "cpu"
    dtype: str = "auto"
    vae_tiling: str = "auto"
    shard_weights: bool = False
    threads: int = 1
    timeout: float = 300.0
    models: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One attempt at a segment. `parent`: the marker that the segment continues; `last`: nothing continues it;
    `reuse`: False to compute every step, whatever the policy says."""

    request: RenderRequest
    segment: Segment
    parent: SegmentMarker | None
    last: bool
    reuse: bool = True


@dataclass(frozen=True)
class Flawed:
    """The attempt was given up, since the chunk (of the whole video) came out spoilt and reuse may be why."""

    chunk: int
    flaw: str


Event = ChunkRecord | SegmentMarker | Flawed  # a chunk is finished; the task has ended in one way or the other
