"""What a rank is told, and what it answers: plain data that passes between the driver and its gangs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowcache.families.registry import reference
from flowcache.inputs.options import RunOptions
from flowcache.records import ChunkRecord, RenderRequest, Segment
from flowcache.storage.documents import RunRecord, SegmentMarker
from flowcache.storage.finish_marker import FinishMarker


@dataclass(frozen=True)
class WorkerSettings:
    """What every rank of a run shares. `options`: how to run; `device`: cpu or cuda, which of the two the cluster has.

    `models`: where a checkpoint lies, by the name that requests use (absolute: a worker has a folder of its
    own); `sizes`: by model, (width, height) of the run's largest frames.
    """

    run_id: str
    spec_hash: str
    options: RunOptions = RunOptions()
    device: str = "cpu"
    models: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    holder: str | None = None  # who must hold the root for a segment to be committed


def worker_settings(record: RunRecord, holder: str, options: RunOptions) -> WorkerSettings:
    """What ranks are told of a run; not yet on which device. Of all of it, also of what is done: always the same."""
    models = {name: reference(name) for name in record.models}
    sizes = largest(record.requests)
    return WorkerSettings(record.run_id, record.spec_hash, options, models=models, sizes=sizes, holder=holder)


def largest(requests: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """By model, (width, height) of the frames with the most pixels."""
    found: dict[str, tuple[int, int]] = {}
    for request in requests:
        model = request["model"]
        sizes = (request["width"], request["height"]), found.get(model, (0, 0))
        found[model] = max(sizes, key=lambda size: (size[0] * size[1], size))
    return found


EVERY = 1.0  # the budget of a window that computes every step


@dataclass(frozen=True)
class Raised:
    """What the quality guard (`worker.guard`) made of a segment's budget. repeats: renders that were given up, and
    `forwards` all that these took."""

    budget: float
    repeats: int
    forwards: int

    @property
    def words(self) -> str:
        return "with every step" if self.budget >= EVERY else f"within a budget of {self.budget:g}"


@dataclass(frozen=True)
class Task:
    """One attempt at a segment. `parent`: the marker that the segment continues; `last`: nothing continues it;
    `init`: sha256 of the video's init segment, where anything of it is committed; `reuse`: False to compute every step,
    whatever the policy says; `frugal`: with as little memory as can be; `spec_hash`: what its marker names, None: the
    run's own; `raised`: by what in place of the row's budget. `finish`: no segment, but the run's finishing function
    over the whole video, on rank 0 alone; the segment's index is then how many there are."""

    request: RenderRequest
    segment: Segment
    parent: SegmentMarker | None
    last: bool
    init: str | None = None
    reuse: bool = True
    frugal: bool = False
    spec_hash: str | None = None
    finish: bool = False
    raised: Raised | None = None


@dataclass(frozen=True)
class Flawed:
    """The attempt was given up, since the chunk (of the whole video) came out spoilt and reuse may be why."""

    chunk: int
    flaw: str


@dataclass(frozen=True)
class Again:
    """The attempt was given up, since the chunk (of the whole video) strays so many times as far as calibration saw."""

    chunk: int
    ratio: float
    raised: Raised  # what to render it by next


# a chunk is finished; the task has ended in one way or the other
Event = ChunkRecord | SegmentMarker | Flawed | Again | FinishMarker
