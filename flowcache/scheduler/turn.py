"""Whose turn it is in a root, among jobs that something starts, and starts again (KubeRay), and until when.

It spares machines, and takes part in no commit: two drivers on one root are safe without it. A retry takes the turn of
its job at once; another job leaves while the one whose turn it is gives signs of life, and takes the turn after them.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from flowcache.errors import AtWork, StoreError, masked
from flowcache.scheduler.stopping import LATE, Stopping
from flowcache.storage import layout
from flowcache.storage.documents import canonical, typed
from flowcache.storage.objects.store import Store

BEAT = 15.0  # seconds between two signs of life
DEAD = 2.5 * BEAT  # seconds after which a turn without one is nobody's
LOOK = 5.0  # seconds between two looks at a turn that may be somebody's
RETRY = 7200.0  # seconds after a job's last sign of life: until then a start is a retry, later a job of the same name
DAY = 86_400.0


@dataclass(frozen=True)
class Turn:
    """`until`: the deadline of the job's first start, unix seconds. `over`: the job has ended, and is not retried."""

    job: str
    driver: str
    until: float | None
    beat: int
    at: float  # unix seconds
    over: bool = False


@contextmanager
def turn(store: Store, job: str | None, stopping: Stopping, note: Callable[[str], None]) -> Iterator[None]:
    """Holds the job's turn, whose deadline becomes that of `stopping`; None: without one. AtWork: it is another's."""
    if job is None:
        yield
        return
    last = _read(store)
    if last and last.job != job and _alive(store, last):
        raise AtWork(f"job {last.job} is at work on {masked(store.url)}: {job} leaves it to that one")
    stopping.until = _first(last, job, stopping.until, note)
    mine = Turn(job, uuid.uuid4().hex, stopping.until, 0, time.time())
    _write(store, mine)
    ended = threading.Event()
    beating = threading.Thread(target=_keep, args=(store, mine, stopping, ended), name="turn", daemon=True)
    beating.start()
    over = False
    try:
        yield
        over = stopping.why in (None, LATE)
    finally:
        ended.set()
        beating.join()
        if over and _ours(store, mine):
            _write(store, replace(mine, over=True, at=time.time()))


def _keep(store: Store, mine: Turn, stopping: Stopping, ended: threading.Event) -> None:
    """Signs of life until the run has ended, or another driver has taken the turn."""
    while not ended.wait(BEAT):
        if not _ours(store, mine):
            stopping.stop("another driver took over")
            return
        mine = replace(mine, beat=mine.beat + 1, at=time.time())
        _write(store, mine)


def _alive(store: Store, last: Turn) -> bool:
    """Whether the turn's driver gives a sign of life. Clocks of two machines are not compared."""
    begin = time.monotonic()
    while not last.over and time.monotonic() - begin < DEAD:
        time.sleep(LOOK)
        now = _read(store)
        if now and not now.over and now != last:
            return True
        last = now or last
    return False


def _first(last: Turn | None, job: str, until: float | None, note: Callable[[str], None]) -> float | None:
    """The deadline of the job's first start, where this is a retry that asks for the same time of day."""
    if last is None or last.job != job or last.over or time.time() - last.at > RETRY:
        return until
    if until is None or last.until is None or (until - last.until) % DAY:
        return until
    if last.until < until:
        note(f"started again: the deadline stays {time.strftime('%Y-%m-%d %H:%M', time.gmtime(last.until))} UTC")
    return last.until


def _ours(store: Store, mine: Turn) -> bool:
    now = _read(store)
    return now is None or now.driver == mine.driver


def _read(store: Store) -> Turn | None:
    """None where there is none, or nothing that can be read: a turn is advice."""
    try:
        data = store.find(layout.TURN)
        return None if data is None else typed(Turn(**json.loads(data)))
    except (StoreError, ValueError, TypeError, RecursionError):
        return None


def _write(store: Store, mine: Turn) -> None:
    with suppress(StoreError):
        store.put(layout.TURN, canonical(vars(mine)))
