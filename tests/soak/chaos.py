"""What is done to gangs, nodes, driver and S3 server while they work."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from benchmarks.footprint import descendants
from tests.soak.night import Driver
from tests.soak.servers import Ceph, Moto

# Share of all actions. "stop": for good, so that only a deadline helps; "slow": goes on after some seconds.
ACTIONS = {
    "gang killed": 0.35,
    "gang stopped": 0.05,
    "gang slowed": 0.2,
    "node killed": 0.08,
    "driver killed": 0.1,
    "driver slowed": 0.06,
    "S3 server killed": 0.08,
    "S3 server slowed": 0.08,
}
HEALTH = {
    "health_check_period_ms": 2000,
    "health_check_failure_threshold": 10,
    "health_check_timeout_ms": 5000,
    "health_check_initial_delay_ms": 0,
}


class NodeHealth:
    """A Ray of a head without resources and `count` nodes of one CPU: a gang each."""

    def __init__(self, count: int):
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.count = count
        self.workers = [self.add() for _ in range(count)]

    @property
    def address(self) -> str:
        return self.cluster.address

    def add(self):
        return self.cluster.add_node(num_cpus=1, include_dashboard=False)

    def kill(self, node) -> None:
        self.workers.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def actors(self) -> list[int]:
        """Process ids of gang actors: children of our own nodes' raylets, so nobody else's."""
        raylets = [raylet.process.pid for node in self.workers for raylet in node.all_processes.get("raylet", [])]
        found = {pid for raylet in raylets for pid in descendants(raylet, set())}
        return sorted(pid for pid in found if title(pid).startswith("ray::RankActor"))

    def leftovers(self) -> list[str]:
        """Actors and placement groups that are still there, some seconds after the run."""
        ray.init(address=self.address, log_to_driver=False)
        try:
            deadline = time.monotonic() + 60
            while True:
                groups = [g["placement_group_id"] for g in placement_group_table().values() if g["state"] != "REMOVED"]
                left = groups + [title(pid) for pid in self.actors()]
                if not left or time.monotonic() > deadline:
                    return left
                time.sleep(0.5)
        finally:
            ray.shutdown()

    def close(self) -> None:
        self.cluster.shutdown()


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended


class Chaos:
    """Does one thing at a time to one of them; `heal` brings back what should come back. `given` counts."""

    def __init__(self, nodes: NodeHealth, driver: Driver, s3: Ceph | Moto, draw: random.Random):
        self.nodes, self.driver, self.s3, self.draw = nodes, driver, s3, draw
        self.given: Counter[str] = Counter()
        self._later: list[threading.Timer] = []  # that bring back what was stopped
        self._node_back = 0.0

    def act(self, action: str) -> None:
        who, _, what = action.rpartition(" ")
        {"gang": self._gang, "node": self._node, "driver": self._driver, "S3 server": self._server}[who](action, what)

    def _gang(self, action: str, what: str) -> None:
        actors = self.nodes.actors()
        if actors:
            self._signal(self.draw.choice(actors), what)
            self.given[action] += 1

    def _node(self, action: str, what: str) -> None:
        if self.nodes.workers:
            self.nodes.kill(self.draw.choice(self.nodes.workers))
            self._node_back = time.monotonic() + self.draw.uniform(1.0, 6.0)
            self.given[action] += 1

    def tend(self) -> None:
        """Nodes that were killed come back, when it is time. In the main thread: Ray insists."""
        if len(self.nodes.workers) < self.nodes.count and time.monotonic() > self._node_back:
            self.nodes.workers.append(self.nodes.add())

    def _driver(self, action: str, what: str) -> None:
        if self.driver.ended is not None:
            return
        if what == "killed":
            self.driver.kill()
            self.driver.start()
        else:
            self._signal(self.driver.process.pid, what)
        self.given[action] += 1

    def _server(self, action: str, what: str) -> None:
        self.heal()
        if what == "killed":
            self.s3.kill()
            self._soon(self.s3.start)
        else:
            self._signal(self.s3.pid, what)
        self.given[action] += 1

    def _signal(self, pid: int, what: str) -> None:
        """killed, stopped for good, or slowed: stopped for some seconds."""
        send(pid, signal.SIGKILL if what == "killed" else signal.SIGSTOP)
        if what == "slowed":
            self._soon(lambda: send(pid, signal.SIGCONT))

    def _soon(self, undo: Callable[[], None]) -> None:
        """In a thread of its own: whoever watches the run may be waiting for what was stopped."""
        timer = threading.Timer(self.draw.uniform(1.0, 6.0), undo)
        self._later.append(timer)
        timer.start()

    def heal(self) -> None:
        """All that should come back is back."""
        for timer in self._later:
            timer.join()
        self._later.clear()


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has ended by itself
