"""What the driver needs of its gangs, whether actors on Ray (`gang.py`, `cluster.py`) or pretended ones."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from flowcache.errors import masked
from flowcache.records import ChunkRecord, RenderRequest, Segment
from flowcache.storage.documents import SegmentMarker


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


class GangFailure(Exception):
    """A rank failed. `kind`: "infra" for a lost process, "store" where the store did not answer it, "node" where its
    machine is at fault (no rights in the store, a full disk), "work" for an exception of the work itself.

    `usable`: the gang can take another task; otherwise it is only good for `tear_down`.
    """

    def __init__(
        self,
        rank: int,
        kind: Literal["infra", "store", "node", "work"],
        cause: str,
        log: str = "",
        usable: bool = False,
    ):
        self.rank, self.kind, self.usable = rank, kind, usable
        self.cause, self.log = masked(cause), masked(log)  # they go into logs and dead letters
        super().__init__(f"rank {rank}: {self.cause}")


class Gang(Protocol):
    """Starting, then idle (`task` is None) or busy."""

    name: str
    node: str | None  # where it is, once it has started
    started: bool
    task: Task | None
    model: str | None  # what it has loaded
    video: str | None  # whose tail it holds
    heard: float  # last sign of life, as `Fleet.now`

    def assign(self, task: Task) -> None: ...

    def poll(self, news: list[Any]) -> list[Event]:
        """What `news` of `Fleet.wait` says; the marker comes last and ends the task. Raises GangFailure."""
        ...

    def log_of(self, rank: int) -> str:
        """The end of what the rank has written, also once it is dead; "" where nobody knows."""
        ...

    def tear_down(self) -> None: ...


class Fleet(Protocol):
    """Where gangs come from."""

    def now(self) -> float:
        """Seconds on the clock that gangs live by."""
        ...

    def places(self) -> dict[str, int]:
        """How many gangs each node holds by now, those that are there included."""
        ...

    def start(self, name: str, avoided: Collection[str]) -> Gang:
        """A gang on a node that is not avoided."""
        ...

    def wait(self, gangs: Sequence[Gang], seconds: float) -> list[tuple[Gang, list[Any]]]:
        """Gangs with news; waits until there is one, or so long."""
        ...
