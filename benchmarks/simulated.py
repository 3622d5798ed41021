"""Gangs that only simulate rendering, on a clock of their own: the driver, the queue and the store code are real.

Everything that a worker writes is written, through the functions that workers use: media, state, marker.
"""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flowcache.errors import FlowcacheError
from flowcache.records import ChunkRecord
from flowcache.scheduler.protocols import Connect, GangFailure, GangWork, kind_of
from flowcache.storage import layout
from flowcache.storage.commits import commit_segment, marker_sha256, new_attempt, put_init, read_state
from flowcache.storage.documents import SegmentMarker, sha256
from flowcache.storage.finish_marker import FinishMarker
from flowcache.storage.objects.store import Store
from flowcache.worker.finish import finish
from flowcache.worker.task import Event, Task, WorkerSettings

CHUNK_SECONDS = 1.0  # that a simulated chunk takes
INIT, STREAM = b"init", {"codecs": "avc1.64000a", "resolution": "64x64"}


class PretendedGang:
    """Becomes ready after `start_seconds`; renders a chunk every `chunk_seconds`. See `protocols.Gang`."""

    def __init__(self, provider: "SimulatedProvider", name: str, node: str):
        self.provider, self.name, self.node = provider, name, node
        self.started, self.alive = False, True
        self.task: Task | None = None
        self.model: str | None = None
        self.video: str | None = None
        self.heard = provider.now()

    def assign(self, task: Task) -> None:
        self.task, self.heard = task, self.provider.now()
        if not task.finish:
            self.model, self.video = task.request.model, task.request.id
        seconds = self.provider.seconds(task)
        if seconds is not None:  # None: it will never be heard of again
            self.provider.later(seconds, self, "rendered")

    def poll(self, news: list[Any]) -> list[Event]:
        self.heard = self.provider.now()
        if news == ["up"]:
            self.started = True
            return []
        if news == ["abandoned"]:
            self.task = None
            raise GangFailure(0, "abandoned", "the video was cancelled", usable=True)
        if news == ["gone"]:
            raise GangFailure(0, "infra", "its process is gone")
        task, begin = self.task, time.thread_time()
        try:
            self.provider.fault_on(self.node, task)
            end = render(self.provider, self.name, task) if not task.finish else self._finish(task)
        except FlowcacheError as error:  # which leaves a rank sound
            self.task = None
            raise GangFailure(0, kind_of(error), f"{type(error).__name__}: {error}", usable=True) from error
        except GangFailure as failure:
            if failure.usable:
                self.task = None
            raise
        finally:
            self.provider.worked += time.thread_time() - begin
        self.task = None
        return [*(end.chunks if isinstance(end, SegmentMarker) else ()), end]

    def _finish(self, task: Task) -> FinishMarker:
        self.provider.fault(task)
        return finish(self.provider.store, task, self.provider.settings, self.name)

    def abandon(self) -> bool:
        happens = self.provider.happens
        happens[:] = [one for one in happens if one[2] is not self]
        heapq.heapify(happens)
        self.provider.later(0.0, self, "abandoned")
        return True

    def log_of(self, rank: int) -> str:
        return f"last words of {self.name}, rank {rank}"

    def tear_down(self) -> None:
        self.alive = False


class SimulatedProvider:
    """`size` gangs fit, shared out over `nodes`. Time passes only in `wait`, from one thing that happens to the next.

    seconds: how long a task takes, None: for ever; fault: called before each attempt, may raise GangFailure, and
    fault_on, which gets the node too.
    """

    def __init__(
        self,
        store: Store,
        settings: WorkerSettings,
        size: int,
        start_seconds: float = 1.0,
        seconds: Callable[[Task], float | None] = lambda task: task.segment.chunks * CHUNK_SECONDS,
        fault: Callable[[Task], None] = lambda task: None,
        nodes: int = 1,
        fault_on: Callable[[str, Task], None] = lambda node, task: None,
    ):
        self.store, self.settings, self.size, self.start_seconds = store, settings, size, start_seconds
        self.seconds, self.fault, self.nodes, self.fault_on = seconds, fault, nodes, fault_on
        self.clock, self.number = 0.0, 0
        self.worked = 0.0  # CPU seconds that gangs took, which on a cluster are spent elsewhere
        self.gangs: list[PretendedGang] = []
        self.happens: list[tuple[float, int, PretendedGang, str]] = []

    def now(self) -> float:
        return self.clock

    def places(self) -> dict[str, int]:
        return {f"node-{n}": len(range(n, self.size, self.nodes)) for n in range(self.nodes)}

    def start(self, name: str, avoided: Collection[str]) -> PretendedGang:
        """Where fewest are."""
        on = Counter(gang.node for gang in self.gangs if gang.alive)
        node = min((node for node in self.places() if node not in avoided), key=lambda node: on[node])
        gang = PretendedGang(self, name, node)
        self.gangs.append(gang)
        self.later(self.start_seconds, gang, "up")
        return gang

    def later(self, seconds: float, gang: PretendedGang, what: str) -> None:
        self.number += 1
        heapq.heappush(self.happens, (self.clock + seconds, self.number, gang, what))

    def kill(self, gang: PretendedGang) -> None:
        """As when its node goes: nothing that it was doing will come to be."""
        gang.alive = False
        self.later(0.0, gang, "gone")

    def wait(self, gangs: Sequence[PretendedGang], seconds: float) -> list[tuple[PretendedGang, list[Any]]]:
        until = self.clock + seconds
        while self.happens and self.happens[0][0] <= until:
            self.clock, _, gang, what = heapq.heappop(self.happens)
            if gang in gangs and (gang.alive or what == "gone"):
                return [(gang, [what])]
        self.clock = until
        return []


def render(provider: SimulatedProvider, name: str, task: Task) -> SegmentMarker:
    """One attempt, from upload to commit, in the order of `worker.worker`."""
    provider.fault(task)
    store, request, segment, attempt = provider.store, task.request, task.segment, new_attempt()
    if task.parent:
        read_state(store, task.parent)
    chunks = tuple(upload(store, task, segment.first_chunk + i, attempt) for i in range(segment.chunks))
    state = None if task.last else f"tail of {request.id} {segment.index}".encode()
    if state:
        store.put(layout.state_key(request.id, segment.index, attempt), state)
    marker = SegmentMarker(
        video_id=request.id,
        segment=segment.index,
        attempt=attempt,
        run_id=provider.settings.run_id,
        spec_hash=task.spec_hash or provider.settings.spec_hash,
        seed=request.seed,
        parent_sha256=task.parent and marker_sha256(task.parent),
        init_key=put_init(store, request.id, INIT, task.init),
        init_sha256=sha256(INIT),
        state_key=layout.state_key(request.id, segment.index, attempt) if state else None,
        state_sha256=sha256(state) if state else None,
        state_bytes=len(state or b""),
        chunks=chunks,
        frames=segment.frames,
        start_frame=segment.start_frame,
        fps=request.fps,
        policy=request.policy,
        host="simulated",
        gang=name,
        world_size=1,
        started=provider.clock,
        finished=provider.clock,
        seconds={"conditioning": 0.0},
        stream=STREAM,
    )
    return commit_segment(store, marker, provider.settings.holder)


def upload(store: Store, task: Task, chunk: int, attempt: str) -> ChunkRecord:
    """The segment's frames are shared out evenly, the rest to the first chunk."""
    segment = task.segment
    each = segment.frames // segment.chunks
    first = segment.frames - each * (segment.chunks - 1)
    place = chunk - segment.first_chunk
    data = f"{task.request.id} {task.request.seed} chunk {chunk}".encode()
    key = layout.media_key(task.request.id, chunk, attempt)
    store.put(key, data)
    return ChunkRecord(
        chunk=chunk,
        key=key,
        sha256=sha256(data),
        bytes=len(data),
        frames=each if place else first,
        start_frame=segment.start_frame + (first + each * (place - 1) if place else 0),
        steps_computed=6,
        steps_reused=2,
        denoise_seconds=CHUNK_SECONDS,
        decode_seconds=0.0,
        encode_seconds=0.0,
        upload_seconds=0.0,
    )


def connector(made: list[SimulatedProvider], size: int, **settings: Any) -> Connect:
    """For `scheduler.driver.run`: brings up a simulated provider and appends it to `made`."""

    @contextmanager
    def connect(work: GangWork) -> Iterator[SimulatedProvider]:
        made.append(SimulatedProvider(work.store, work.settings, size, **settings))
        yield made[-1]

    return connect
