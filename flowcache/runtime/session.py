"""Ray for the time of a run: a local one that is started for it, or a cluster that is joined. Whether it is there."""

import atexit
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import worker as ray_worker
from ray.exceptions import RayError

from flowcache.errors import InputError, Problem, first_line
from flowcache.inputs.options import RunOptions, address_fault
from flowcache.scheduler.gang_pool import ClusterError

DIAL = 10.0  # seconds in which a cluster's head takes a connection: Ray itself tries for minutes
LOOK = 2.0  # seconds between two looks at the cluster
SILENCE = 40.0  # seconds of it: at 60 Ray ends the process of a head that was killed
STUCK = 30.0  # seconds more, after which a call into Ray is not waited for
LEAVE = 5.0  # seconds to leave a Ray that is lost
GOES_ON = ". What is committed stays, and the same command goes on from there"


class RayWatch:
    """Looks at the cluster beside the run, since a call to a head that has stopped may never come back."""

    def __init__(self, ours: bool, tell: Callable[[str], None]):
        """ours: it was started for the run, on this machine alone."""
        self.ours, self.tell = ours, tell
        context = ray.get_runtime_context()
        self.node, self.head = context.get_node_id(), context.gcs_address
        self._nodes, self._heard = ray.nodes(), time.monotonic()
        self._gone = False  # the head of a Ray of our own, which nobody starts again
        self.whose = "the local Ray" if ours else "the Ray cluster"
        self._closing, self._told = threading.Event(), threading.Event()
        for work in (self._look, self._end_if_stuck):
            threading.Thread(target=work, daemon=True, name=f"ray-watch{work.__name__}").start()

    @property
    def nodes(self) -> list[dict]:
        """Those that are there; ClusterError where Ray is lost."""
        self.check()
        return [node for node in self._nodes if node["Alive"]]

    @property
    def lost(self) -> str | None:
        """Why nothing more can be done with this Ray."""
        whose, quiet = self.whose, time.monotonic() - self._heard
        if self._gone:
            return f"{whose} is lost: its head (the GCS process) has died or was stopped"
        if quiet > SILENCE:
            return f"{whose} is lost: its head (the GCS process) has not answered for {quiet:.0f} s"
        if not any(node["NodeID"] == self.node and node["Alive"] for node in self._nodes):
            return f"{whose} is lost: its process on this machine (the raylet) has died or was stopped"
        return None

    def check(self) -> None:
        if why := self.lost:
            self._told.set()
            raise ClusterError(why + GOES_ON)

    def close(self) -> None:
        self._closing.set()

    def _look(self) -> None:
        while not self._closing.wait(LOOK):
            try:
                self._nodes, self._heard = ray.nodes(), time.monotonic()
            except (RayError, RuntimeError, OSError):
                continue  # it is silent, for now

    def _end_if_stuck(self) -> None:
        """The run does not hear that Ray is lost where a call to Ray never ends; nothing but this can end that."""
        while not self._closing.wait(1.0):
            self._gone = self._gone or (self.ours and not answers(self.head))
            if (why := self.lost) and not self._told.wait(STUCK) and self.lost and not self._closing.is_set():
                self.tell(f"error: {why}{GOES_ON}")
                _end()


def answers(address: str) -> bool:
    """Whether a process listens there; one that has stopped does, too."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), DIAL).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True  # nobody knows
    return True


@contextmanager
def joined(options: RunOptions, tell: Callable[[str], None] = lambda message: None) -> Iterator[RayWatch]:
    """Ray for the time of the run. A local one is ours and ends with us; a joined one is left as it was. tell: the
    operator."""
    address = options.address or os.environ.get("RAY_ADDRESS")  # Ray sets it for submitted jobs
    ours = not ray.is_initialized()
    if ours:
        _connect(address, options, tell)
    watch = RayWatch(ours and not address, tell)
    try:
        yield watch
    except RayError as error:
        watch.check()
        raise ClusterError(f"Ray failed: {type(error).__name__}: {first_line(error)}") from error
    finally:
        watch.close()
        lost = watch.lost
        left = not ours or _leave(LEAVE if lost else STUCK)
    if not left:
        raise ClusterError((lost or f"{watch.whose} is lost: it has not let go for {STUCK:.0f} s") + GOES_ON)


def _connect(address: str | None, options: RunOptions, tell: Callable[[str], None]) -> None:
    # Ray's own errors are dumps of its state, such as a lost node's; what they mean for the run is said by us.
    ray_worker._worker_logs_enabled = False  # else it prints lost processes among our output, which may be JSON
    common = {"log_to_driver": False, "logging_level": logging.CRITICAL, "namespace": "flowcache"}
    if address:
        _dial(address)
        if fault := _fault_of(address=address, **common):
            raise InputError([Problem("--address", "", f"no Ray cluster answers at {address}: {first_line(fault)}")])
        return
    wanted = options.gang * options.threads * (options.gangs or 1)
    own = {"address": "local", "num_cpus": max(os.cpu_count() or 1, wanted), "include_dashboard": False, **common}
    fault = _fault_of(**own)
    if fault:  # as a rule, half a minute was too short for a busy machine
        tell(f"Ray did not start ({first_line(fault)}); trying once more")
        fault = _fault_of(**own)
    if fault:
        raise ClusterError(
            f"Ray did not start on this machine ({first_line(fault)}). Is it short of memory, processes or room in "
            "/tmp? The same command tries again"
        ) from fault


def _fault_of(**settings: Any) -> BaseException | None:
    """Why Ray can't be had so. Who hears SIGTERM does so afterwards, too, and of one that made Ray exit."""
    heard, fault = signal.getsignal(signal.SIGTERM), None
    try:
        ray.init(**settings)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (also "The current node timed out during startup")
        fault = error
        if ray.is_initialized():
            ray.shutdown()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, heard or signal.SIG_DFL)
        if isinstance(fault, SystemExit):
            signal.raise_signal(signal.SIGTERM)
    return fault


def _dial(address: str) -> None:
    """Whether anybody is there at all. InputError where not."""
    fault = address_fault(address)
    if fault:
        raise InputError([Problem("--address", "", fault)])
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # "auto": Ray looks for the one on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), DIAL).close()
    except OSError as error:
        raise InputError([Problem("--address", "", f"no Ray cluster answers at {address}: {error}")]) from None


def _leave(seconds: float) -> bool:
    """Whether Ray has let go in time. Its processes end with this one where not, as when its raylet has stopped."""
    leaving = threading.Thread(target=ray.shutdown, daemon=True, name="ray-leave")
    leaving.start()
    leaving.join(seconds)
    if leaving.is_alive():
        atexit.unregister(ray.shutdown)  # which would wait at the end of the process
        atexit.register(_end)  # first of all that is done at the end of the process, where Ray would crash it
    return not leaving.is_alive()


def _end() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ClusterError.exit_code)
