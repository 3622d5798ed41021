"""Why a run starts nothing more: its deadline came, or a signal did."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from flowcache.inputs.options import RunOptions

LATE = "its deadline came"


class Stopping:
    """At the deadline what is started is finished; stopped otherwise, segments under way get `grace` seconds."""

    def __init__(self, options: RunOptions):
        self.options = options
        self.why: str | None = None
        self._until: float | None = None  # the deadline on the gangs' clock
        self._leave: float | None = None  # when segments under way are given up, on that clock

    @property
    def late(self) -> bool:
        """Whether the deadline has passed before anything was started."""
        if self.options.until is not None and time.time() >= self.options.until:
            self.why = LATE
        return self.why is not None

    def stop(self, why: str) -> None:
        """Start nothing more. Safe to call from a signal handler."""
        self.why = why

    def begin(self, now: float) -> None:
        """Gangs are there. now: on their clock, which need not be the wall's."""
        self._until = None if self.options.until is None else now + self.options.until - time.time()

    def over(self, now: float, under_way: bool) -> bool:
        """Whether a stopped run has nothing more to wait for. under_way: some gang has work."""
        if self._until is not None and now >= self._until and not self.why:
            self.why = LATE
            self._leave = float("inf")  # what is started is finished
        if not self.why:
            return False
        if self._leave is None:
            self._leave = now + self.options.grace
        return not under_way or now > self._leave


@contextmanager
def on_sigterm(stop: Callable[[str], None]) -> Iterator[None]:
    """The first SIGTERM calls `stop`, another one ends the run like Ctrl-C.

    To be entered after what gangs run on was connected to, which may set a handler of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        stop("SIGTERM came")

    before = signal.signal(signal.SIGTERM, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
