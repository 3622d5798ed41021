"""What the driver needs of its gangs, whether actors on Ray (`runtime/`) or simulated ones."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from flowcache.errors import ObjectError, OutOfMemory, StoreError, masked
from flowcache.records import RenderRequest
from flowcache.storage.documents import Damaged, Unreadable
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import Superseded
from flowcache.worker.prefetch import Abandoned
from flowcache.worker.task import Event, Task, WorkerSettings
from flowcache.worker.walking import Ask

FailureKind = Literal["infra", "store", "node", "memory", "damaged", "unreadable", "superseded", "abandoned", "work"]


class GangFailure(Exception):
    """A rank failed. `kind`: "infra" for a lost process, "store" where the store refused it or did not answer, "node"
    where that may lie with its machine (no rights in the store, a full disk), "memory" where the GPU had not enough of
    it, "damaged" where the store holds something else than what the segment goes on from, "unreadable" where it refuses
    that alone, "superseded" where the root is somebody else's, "abandoned" where it was told to end, "work" for another
    exception of the work itself.

    `usable`: the gang can take another task; otherwise it is only good for `tear_down`.
    """

    def __init__(self, rank: int, kind: FailureKind, cause: str, log: str = "", usable: bool = False):
        self.rank, self.usable = rank, usable
        self.kind: FailureKind = kind
        self.cause, self.log = masked(cause), masked(log)  # they go into logs and dead letters
        super().__init__(f"rank {rank}: {self.cause}")


def kind_of(cause: BaseException) -> FailureKind:
    """By where an exception came from: the store's are never the work's, unless an object was proven damaged."""
    if isinstance(cause, Damaged):
        return "unreadable" if isinstance(cause, Unreadable) else "damaged"
    if isinstance(cause, Superseded):
        return "superseded"
    if isinstance(cause, Abandoned):
        return "abandoned"
    if isinstance(cause, StoreError) and not isinstance(cause, ObjectError):
        return "node" if cause.of_machine and not cause.passing else "store"
    return "memory" if isinstance(cause, OutOfMemory) else "work"


class Member(Protocol):
    """A gang as its pool sees it: starting, then idle (`task` is None) or busy."""

    name: str
    node: str  # where it is; "" until it has started
    started: bool
    heard: float  # last sign of life, as `GangProvider.now`

    @property
    def task(self) -> object: ...

    def tear_down(self) -> None: ...


class Gang(Member, Protocol):
    """One that renders."""

    model: str | None  # what it has loaded
    video: str | None  # whose tail it holds

    @property
    def task(self) -> Task | None: ...

    def assign(self, task: Task) -> None: ...

    def poll(self, news: list[Any]) -> list[Event]:
        """What `news` of `GangProvider.wait` says; the marker comes last and ends the task. Raises GangFailure."""
        ...

    def abandon(self) -> bool:
        """End the task soon, which is then told by a GangFailure of that kind unless it was committed before. False
        where only `tear_down` ends it."""
        ...

    def log_of(self, rank: int) -> str:
        """The end of what the rank has written, also once it is dead; "" where nobody knows."""
        ...


G = TypeVar("G", bound=Member)


class WalkGang(Member, Protocol):
    """One that walks windows for a calibration."""

    def assign(self, ask: Ask[Any]) -> None: ...

    def poll(self, news: list[Any]) -> list[Any]:
        """The answer, once all ranks are through; it ends the task. Raises GangFailure."""
        ...


class GangProvider(Protocol[G]):
    """Where gangs, all of one kind, come from."""

    def now(self) -> float:
        """Seconds on the clock that gangs live by."""
        ...

    def places(self) -> dict[str, int]:
        """How many gangs each node holds by now, those that are there included."""
        ...

    def start(self, name: str, avoided: Collection[str]) -> G:
        """A gang on a node that is not avoided."""
        ...

    def wait(self, gangs: Sequence[G], seconds: float) -> list[tuple[G, list[Any]]]:
        """Gangs with news; waits until there is one, or so long."""
        ...


@dataclass(frozen=True)
class GangWork:
    """What gangs are brought up for."""

    store: Store
    settings: WorkerSettings  # for every rank; the device is for whoever brings them up to say
    digests: Mapping[str, str]  # of the checkpoints, by model
    waiting: Sequence[RenderRequest]  # what is left to render, in part or whole
    startable: int  # segments that could start at once
    note: Callable[[str], None]  # tells the operator


Connect = Callable[[GangWork], AbstractContextManager[GangProvider[Any]]]  # brings up what gangs run on, for a while
