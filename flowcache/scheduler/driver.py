"""The run: hands segments to gangs until every video is committed or dead-lettered.

Keeps no state of its own: killed and started again, it reads the store and renders what is missing.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flowcache.errors import FlowcacheError, InputError, Problem, StoreError
from flowcache.inputs.options import RunOptions
from flowcache.progress.events import Listener, NodesAvoided, Note, RunEnded, RunOver, Tick, Together
from flowcache.records import ChunkRecord, ModelSpec, RenderRequest
from flowcache.scheduler.event_log import EventLog
from flowcache.scheduler.failures import Failures
from flowcache.scheduler.gang_pool import GangPool
from flowcache.scheduler.joining import PlanRows
from flowcache.scheduler.ledger import Ledger
from flowcache.scheduler.protocols import Connect, Gang, GangFailure, GangProvider
from flowcache.scheduler.steering import Steering
from flowcache.scheduler.stopping import Stopping, left_early, on_sigterm
from flowcache.scheduler.summary import Summary, summarise
from flowcache.scheduler.telling import tell_stopped, told_end
from flowcache.storage.commits import success, withdraw_stopped
from flowcache.storage.documents import RunRecord, Stopped
from flowcache.storage.extend import extend
from flowcache.storage.finish_marker import FinishMarker
from flowcache.storage.growth import Terms
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import Hold, Superseded, take
from flowcache.storage.runs import PLAIN, begin_run
from flowcache.storage.turn import DONE, Job
from flowcache.storage.withdrawal import finish_withdrawals
from flowcache.worker.task import Again, Event, Flawed, Raised, Task

ENDING = 20.0  # seconds for a gang to end the task of a cancelled video, after which its processes are
WATCH_EVERY = 1.0  # seconds between two looks for stalls and for room in the cluster


def run(
    store: Store,
    record: RunRecord,
    requests: list[RenderRequest],
    specs: dict[str, ModelSpec],
    options: RunOptions,
    listener: Listener,
    connect: Connect,
    prepare: Callable[[Store, Hold], object] = lambda store, hold: finish_withdrawals(store),
    terms: Terms = PLAIN,
    stopping: Stopping | None = None,
    plan_rows: PlanRows | None = None,
) -> Summary:
    """Render what the store lacks of `requests`, write tables and summary. `specs`: model name -> spec.

    listener: is told of every event; connect: brings up what gangs run on; prepare: what is done to the store first;
    terms: how it takes up a root that holds a run; stopping: what stops it; plan_rows: reads manifests that come while
    it goes on. Superseded where another driver takes the root over meanwhile.
    """
    begin = time.monotonic()
    try:
        store.probe()
    except StoreError as error:
        if error.passing:
            raise
        raise InputError([Problem("output", "", str(error))]) from error
    wanted, stopping, note = record, stopping or Stopping(options), lambda message: listener.on(Note(message))
    record = begin_run(store, wanted, terms, note)
    job = Job(options.started_as, options.until) if options.started_as else None
    with (
        on_sigterm(stopping) as listen,
        take(store, record, "render", note, job) as hold,
        EventLog(store, hold.name) as log,
        told_end(tell := Together(listener, log).on),
    ):
        if job:
            stopping.until = hold.holder.until
        try:
            withdraw_stopped(store)
            prepare(store, hold)
            record = extend(store, record, wanted, terms, note) if terms.extend else record
            ledger = Ledger(store, record, hold, requests, specs, options, tell)
        except (StoreError, InputError) as error:
            end = Stopped(record.run_id, str(error), error.exit_code, len(requests), time.time())
            tell_stopped(store, end, note)
            raise
        try:
            summary = _finish(ledger, stopping, Steering(ledger, stopping, plan_rows), connect, listen, begin)
        except Superseded:
            with suppress(StoreError):
                ledger.put_right()
            raise
        hold.how = stopping.why or DONE
        tell(RunOver(summary.exit_code, summary.stopped or ""))
        return summary


def _finish(
    ledger: Ledger,
    stopping: Stopping,
    steering: Steering,
    connect: Connect,
    listen: Callable[[], None],
    begin: float,
) -> Summary:
    """Render what is left, write what says so, and read it back. begin: of the run, on the monotonic clock."""
    store = ledger.store
    try:
        ledger.settle_committed()
        steering.begin()
        if not ledger.queue.finished and not stopping.late:
            with left_early(stopping), connect(ledger.work()) as provider:
                listen()
                Driver(provider, ledger, stopping, steering).render()
                ledger.writer.drain()  # dead letters still ask nodes for logs
        ledger.writer.drain()
        ledger.tell_finished()
        steering.close()
    except Superseded:
        raise
    except FlowcacheError as error:
        ledger.gave_up(error)
        raise
    finally:
        steering.abandon()
        ledger.writer.close()
        ledger.tell(RunEnded())
    listing, record = ledger.prove(), ledger.record
    took = time.monotonic() - begin
    summary = summarise(store, record, listing, ledger.queue, ledger.rendered, stopping.why, took, ledger.outside)
    unfinished = summary.left or any(letter.kind == "finish" for letter in listing.dead_letters.values())
    if listing.done >= record.plan["videos"].keys() and not record.rejected and not unfinished:
        success(store, {"run_id": record.run_id, "videos": len(record.plan["videos"])})
    elif summary.stopped:
        ledger.stopped(summary.stopped, summary.exit_code, summary.left)
    elif others := record.plan["videos"].keys() - listing.done - listing.dead_letters.keys():
        withheld = len(others & listing.withheld.keys())
        causes = {"are cancelled": withheld, "were not asked for this time": len(others) - withheld}
        why = ", ".join(f"{number} videos {cause}" for cause, number in causes.items() if number)
        ledger.stopped(why, summary.exit_code, len(others))
    return summary


class Driver:
    """The loop: hears what gangs have done and gives them what is next."""

    def __init__(self, provider: GangProvider[Any], ledger: Ledger, stopping: Stopping, steering: Steering):
        self.provider, self.ledger, self.stopping, self.steering = provider, ledger, stopping, steering
        self.queue, self.tell = ledger.queue, ledger.tell
        self.pool = GangPool(provider, ledger.options, ledger.note)
        self.failures = Failures(self.pool, ledger)
        self.spoilt: set[tuple[str, int]] = set()  # (video, segment) to render without reuse
        self.raised: dict[tuple[str, int], tuple[RenderRequest, Raised]] = {}  # alike, by larger budgets
        self._watched = provider.now() - WATCH_EVERY
        self._ending: dict[Gang, float] = {}  # gangs whose video was cancelled, since when on the provider's clock

    def render(self) -> None:
        """Until nothing is left, or the run is stopped."""
        self.stopping.begin(self.provider.now())
        try:
            while (not self._finished() or self.steering.last_look()) and not self._over():
                self._watch()
                for gang, news in self.provider.wait(self.pool.gangs, WATCH_EVERY):
                    self._hear(gang, news)
                    self._assign(gang)
                self.tell(Tick())
        finally:
            self.pool.disband()

    def _finished(self) -> bool:
        return self.queue.finished and not self.steering.busy

    def _over(self) -> bool:
        """Whether a stopped run has nothing more to wait for."""
        return self.stopping.over(self.provider.now(), any(gang.task for gang in self.pool.gangs))

    def _watch(self) -> None:
        """Once a second: stalls, room in the cluster, gangs that found no work, what the writer did."""
        now = self.provider.now()
        if now - self._watched < WATCH_EVERY:
            return
        self._watched = now
        self.ledger.hold.check()
        self.steering.tend()
        for gang in list(self.pool.gangs):
            failure = self._unwanted(gang) or self.pool.overdue(gang)
            if failure:
                self.failures.handle(gang, gang.task, failure)
        if not self.stopping.why:
            self.pool.adjust(0 if self.steering.paused else self.queue.startable)
        self.queue.release(lambda node, segment: self.pool.elsewhere(node))
        self.failures.settle()
        self.failures.refusals.tend(any(gang.task for gang in self.pool.gangs) or self.failures.in_doubt)
        self.tell(NodesAvoided(len(self.pool.avoided)))
        for gang in self.pool.gangs:
            self._assign(gang)
        self.ledger.writer.check()
        self.ledger.tell_finished()

    def _unwanted(self, gang: Gang) -> GangFailure | None:
        """Of a gang whose video was cancelled: it is told to end its task; the failure of one that can't, or does not
        in time."""
        task, now = gang.task, self.provider.now()
        if task is None or self.queue.videos[task.segment.video_id].withheld != "cancelled":
            self._ending.pop(gang, None)
            return None
        if gang not in self._ending:
            self._ending[gang] = now
            if gang.abandon():
                return None
        elif now - self._ending[gang] < ENDING:
            return None
        del self._ending[gang]
        return GangFailure(0, "abandoned", "its video was cancelled")

    def _assign(self, gang: Gang) -> None:
        """Work for the gang, if it is idle and there is any."""
        idle = gang.started and not gang.task and gang.node not in self.pool.avoided
        if not idle or self.stopping.why or self.steering.paused or self.failures.in_doubt:
            return
        witness = gang.node if self.pool.nodes.trusted(gang.node) else None
        taken = self.queue.take(gang.model, gang.video, len(self.pool.gangs), witness)
        if taken:
            request, segment = taken
            place = request.id, segment.index
            of, raised = self.raised.get(place, (request, None))
            raised = raised if of == request else None  # the row may have been corrected since
            how = place not in self.spoilt, self.failures.tight(request), raised
            gang.assign(self.ledger.task(request, segment, gang.name, *how))

    def _hear(self, gang: Gang, news: list[Any]) -> None:
        task = gang.task
        try:
            for event in gang.poll(news):
                if task is None:
                    raise RuntimeError(f"gang {gang.name} tells of {event} and has no task")
                self._handle(gang, task, event)
        except GangFailure as failure:
            self.failures.handle(gang, task, failure)

    def _handle(self, gang: Gang, task: Task, event: Event) -> None:
        if isinstance(event, ChunkRecord):
            self.ledger.chunk_done(task.segment, event)
        elif isinstance(event, Flawed):
            self.spoilt.add((task.segment.video_id, task.segment.index))
            self._again(task, f"chunk {event.chunk} is {event.flaw}: rendered without reuse")
        elif isinstance(event, Again):
            self.raised[task.segment.video_id, task.segment.index] = task.request, event.raised
            strays = f"chunk {event.chunk} strays {event.ratio:.3g} times as far as calibration saw"
            self._again(task, f"{strays}: rendered again {event.raised.words}")
        elif isinstance(event, FinishMarker):
            self.pool.nodes.committed(gang.node)
            self.failures.refusals.committed()
            self.ledger.finished(task, event)
        else:
            self.pool.nodes.committed(gang.node)
            self.failures.refusals.committed()
            self.failures.mending.committed(task, event, gang)

    def _again(self, task: Task, cause: str) -> None:
        """Nobody's fault: it may be what the prompt asks for, and then it comes out so again and is kept."""
        self.ledger.failed(task.segment, 0, cause, "flaw", again=True)
