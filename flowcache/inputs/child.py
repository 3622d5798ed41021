"""What runs in a child process of `children.py`: one question after the other, each under its limits."""

import math
import os
import pickle
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from flowcache.errors import MediaError, StoreError, UnreadableError
from flowcache.inputs.children import AWAY, BROKEN, END, FULL, REFUSED, SLOW, STORE, VALUE, Limits
from flowcache.inputs.urls import cause


def main() -> None:
    """Until whoever asks has gone."""
    pipe = Connection(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGALRM, signal.SIGXCPU):  # which our parent may have blocked or ignored
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM, signal.SIGXCPU))
    quiet = os.open(os.devnull, os.O_WRONLY)
    try:
        while True:
            function, limits, given = pickle.loads(pipe.recv_bytes())  # from our own parent
            os.dup2(quiet, 2)  # from here on libraries have nothing to say to a terminal; before, a broken install does
            if (last := answer(pipe, function, limits, given)) == FULL:
                return
            del function, given, last
    except (EOFError, OSError):
        return


def answer(pipe: Connection, function: Callable[..., Iterator[bytes]], limits: Limits, given: tuple) -> bytes:
    """Send all that `function` yields, and how it ended: also what that was."""
    said, values = b"", None
    try:
        values = function(*given)
        while (value := bounded(values, limits)) is not None:
            pipe.send_bytes(VALUE + value)
        ended = END
    except (MediaError, UnreadableError) as error:
        slow = isinstance(error, UnreadableError) and error.slow
        ended, said = SLOW if slow else AWAY if error.away else REFUSED, str(error).encode(errors="backslashreplace")
    except StoreError as error:
        told = f"{error.passing:d}{error.of_machine:d}{error}"
        ended, said = STORE, told.encode(errors="backslashreplace")
    except MemoryError:
        ended = FULL
    except OSError as error:
        ended, said = REFUSED, cause(error).encode()
    except Exception:  # noqa: BLE001 (a fault of ours, which the parent raises)
        ended, said = BROKEN, traceback.format_exc().encode(errors="backslashreplace")
    del values
    hold(None)
    pipe.send_bytes(ended + said)
    return ended


def bounded(values: Iterator[bytes], limits: Limits) -> bytes | None:
    """The next of `values`, made within the limits; None: there is none. MemoryError; time ends the process."""
    hold(limits)
    try:
        return next(values, None)
    finally:
        hold(None)


def hold(limits: Limits | None) -> None:
    """Begin to count, or lift the limits."""
    memory, cpu, wall = resource.RLIM_INFINITY, resource.RLIM_INFINITY, 0
    if limits:
        # Of what is written to and not shared with files: allocators and CUDA reserve far more addresses than that.
        memory, wall = limits.memory, limits.wall
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = math.ceil(used.ru_utime + used.ru_stime) + limits.cpu
    for which, limit in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_CPU, cpu)):
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    signal.setitimer(signal.ITIMER_REAL, wall)


if __name__ == "__main__":
    main()
