"""Child processes in which bytes of strangers are read: one that needs too much ends alone, and says of what."""

import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from flowcache.errors import StoreError, UnreadableError

GRACE = 30.0  # seconds beyond its own limit after which a child that can't even end is left behind
FRAME = 1 << 31  # bytes of one message
# What a message of a child begins with
VALUE, REFUSED, SLOW, AWAY, STORE, BROKEN, FULL, END = b"v", b"r", b"s", b"a", b"o", b"b", b"m", b"."


@dataclass(frozen=True)
class Limits:
    """Of one answer: bytes of memory, seconds of CPU, seconds by the clock."""

    memory: int
    cpu: int
    wall: int


class Children:
    """At most `most` processes, started when they are needed and used again; safe to call from several threads."""

    def __init__(self, most: int):
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        self._all: list[_Child] = []
        for _ in range(most):
            self._idle.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for child in self._all:
            child.end()

    def ask(self, function: Callable[..., Iterator[bytes]], limits: Limits, *given: Any) -> Generator[bytes]:
        """What `function` (of a module, picklable) yields in a child. UnreadableError, StoreError.

        The limits hold for each of its answers anew; time in which nobody asks for the next one is not counted.
        """
        with self._one() as child:
            yield from child.ask(function, limits, given)

    @contextmanager
    def _one(self) -> Iterator["_Child"]:
        child = self._idle.get()
        try:
            if child is None or not child.ready:
                child = self._started(child)
            yield child
        finally:
            self._idle.put(child)

    def _started(self, gone: "_Child | None") -> "_Child":
        if gone is not None:
            gone.end()
            self._all.remove(gone)
        child = _Child()
        self._all.append(child)
        return child


class _Child:
    """One process and the pipe to it. `ready`: for another question."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        # -P: not the current folder, in which anything may lie; where we lie ourselves may have been told by path alone
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
        command = [sys.executable, "-P", "-m", "flowcache.inputs.child", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        self._pipe = Connection(ours.detach())
        self.ready = True

    def ask(self, function: Callable[..., Iterator[bytes]], limits: Limits, given: tuple) -> Generator[bytes]:
        self.ready = False  # until the last answer has come: whoever leaves before that leaves the child to be ended
        try:
            self._pipe.send_bytes(pickle.dumps((function, limits, given)))
            while (answer := self._answer(limits))[:1] == VALUE:
                yield answer[1:]
        except OSError as error:  # EOFError among them: no such process any more
            raise self._cause(limits) from error
        kind, said = answer[:1], answer[1:].decode()
        self.ready = kind != FULL
        if kind in (REFUSED, SLOW, AWAY):
            raise UnreadableError(said, slow=kind == SLOW, away=kind in (SLOW, AWAY))
        if kind == STORE:
            raise StoreError(said[2:], passing=said[0] == "1", of_machine=said[1] == "1")
        if kind == FULL:
            raise UnreadableError(f"needs more than {limits.memory >> 20:,} MiB of memory to be read")
        if kind == BROKEN:
            raise RuntimeError(f"a process that reads media and tables failed:\n{said}")

    def _answer(self, limits: Limits) -> bytes:
        if not self._pipe.poll(limits.wall + GRACE):
            self.end()
        try:
            return self._pipe.recv_bytes(FRAME)
        except EOFError as error:
            raise ConnectionError from error

    def _cause(self, limits: Limits) -> UnreadableError:
        """Why it is gone."""
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.end()
            code = self._process.returncode
        if code == -signal.SIGXCPU:
            return UnreadableError(f"takes more than {limits.cpu} s of CPU to be read")
        if code == -signal.SIGALRM:
            return UnreadableError(f"takes longer than {limits.wall} s to be read", slow=True)
        if code == -signal.SIGKILL:
            return UnreadableError("was being read when the process that did so was killed, as where memory is short")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return UnreadableError(f"crashes the process that reads it ({name})")

    def end(self) -> None:
        self.ready = False
        self._process.kill()
        self._process.wait()
        self._pipe.close()
