"""Why a run starts nothing more: its deadline came, or a signal did."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from flowcache.errors import FlowcacheError
from flowcache.inputs.options import RunOptions
from flowcache.storage.turn import LATE

TOLD = "SIGTERM came"


class Stopping:
    """At the deadline what is started is finished; stopped otherwise, segments under way get `grace` seconds."""

    def __init__(self, options: RunOptions):
        self.grace, self.until = options.grace, options.until
        self.why: str | None = None
        self.early = False  # stopped by SIGTERM, with nothing under way that it was worth to wait for
        self._until: float | None = None  # the deadline on the gangs' clock
        self._leave: float | None = None  # when segments under way are given up, on that clock

    @property
    def late(self) -> bool:
        """Whether the deadline has passed before anything was started."""
        if self.until is not None and time.time() >= self.until:
            self.why = LATE
        return self.why is not None

    def stop(self, why: str) -> None:
        """Start nothing more. Safe to call from a signal handler and from another thread."""
        self.why = why if self.why in (None, LATE) else self.why

    def begin(self, now: float) -> None:
        """Gangs are there. now: on their clock, which need not be the wall's."""
        self._until = None if self.until is None else now + self.until - time.time()

    def over(self, now: float, under_way: bool) -> bool:
        """Whether a stopped run has nothing more to wait for. under_way: some gang has work."""
        if self._until is not None and now >= self._until and not self.why:
            self.why = LATE
        if not self.why:
            return False
        if self.why != LATE and self._leave is None:
            self._leave = now + self.grace
        return not under_way or (self._leave is not None and now > self._leave)


class StoppedEarly(FlowcacheError):
    """SIGTERM came before it was known what is left."""

    exit_code = 5


@contextmanager
def left_early(stopping: Stopping) -> Iterator[None]:
    """What SIGTERM interrupts in here is over, since nothing was under way. Ctrl-C passes."""
    try:
        yield
    except KeyboardInterrupt:  # not one of our own: Ray's calls raise it anew
        if not stopping.early:
            raise


@contextmanager
def on_sigterm(stopping: Stopping) -> Iterator[Callable[[], None]]:
    """SIGTERM stops the run: before the call of what it yields by an interrupt, for `left_early` (else StoppedEarly);
    then as `stopping` does. One that comes after its grace ends it like Ctrl-C.

    Those within the grace say the same once more, as a pod is told by Ray and by its hook, and must not cut short what
    a stopped run still writes. To be called once gangs can work.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    told: list[float] = []  # when, on the monotonic clock
    works = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        told.append(time.monotonic())
        if told[-1] - told[0] > stopping.grace:
            signal.default_int_handler(number, frame)
        stopping.stop(TOLD)
        if len(told) == 1 and not works.is_set():
            stopping.early = True
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with left_early(stopping):
            yield works.set
            return
        raise StoppedEarly(f"{TOLD} before anything was started, and the same command goes on from there")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
