"""Four hosts: a Ray head, two nodes of it, and an S3 server."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from flowcache.storage.commits import list_commits, read_commits
from flowcache.storage.objects.store import Store
from flowcache.storage.verify import verify
from tests.hosts.network import OUTSIDE, Network
from tests.hosts.s3_server import KEY, SECRET
from tests.soak.night import chunks
from tests.soak.servers import wait_until_up

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
HEAD, NODES, STORE = "head", ("one", "two"), "store"
PORT, GCS = 5000, 6379
SEGMENTS = 2  # of each video of the tests' rows
# A node is declared dead after some 20 s: by default it takes 65 s.
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 5,
}
# It gives up what takes 30 s, and machines that test are busy.
RAY = "nice -n -5 ray start --block --disable-usage-stats --object-store-memory=100000000".split()
RUN = "retries: 1\ninfra_retries: 20\nsegment_timeout: 90\ngangs: 2\n"
OF_HEAD = [
    *f"--head --port={GCS} --num-cpus=0 --include-dashboard=false".split(),
    f"--system-config={json.dumps(HEALTH)}",
]
# A raylet waits for its agents; workers are not the last to get a busy machine's CPU.
PATIENT = {"RAY_agent_register_timeout_ms": "100000", "RAY_worker_niceness": "0"}
UP = 400.0  # seconds for what should be there soon, on a busy machine


class Hosts:
    """`folder` becomes the hosts' own folders. Every host has the store's keys until a test says otherwise."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.net = Network(folder, HEAD, *NODES, STORE)
        self.log = folder / STORE / "requests.jsonl"
        self._runs = 0
        self._rays: dict[str, subprocess.Popen] = {}
        self._seen: dict[str, set[str]] = {}  # ids of a host's nodes, as the head last listed them
        self._gone: set[str] = set()  # nodes that were killed, which the head may not have noticed yet
        self._given: dict[str, dict[str, str]] = {}  # by node, what of its environment is its own

    def start(self) -> "Hosts":
        self.net.run(STORE, sys.executable, "-m", "tests.hosts.s3_server", str(PORT), "/tmp/requests.jsonl",
                     env=self.environment(), log="s3.log")  # fmt: skip
        wait_until_up(self.endpoint, UP)
        self.store().backend.fs.mkdir("night")
        for number, name in enumerate((HEAD, *NODES)):  # one after the other, each has 30 s
            self.node(name)
            self.until_alive(*NODES[:number])
        return self

    @property
    def endpoint(self) -> str:
        return f"http://{self.net.address(STORE)}:{PORT}"

    def environment(self, **more: str) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
        here = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/tmp", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return here | keys | {"AWS_ENDPOINT_URL": self.endpoint, "RAY_AUTH_MODE": "disabled"} | PATIENT | more

    def node(self, name: str, **environment: str) -> None:
        """The head, or a node that joins the cluster, in place of the one that is there. environment: as it has it."""
        self.net.kill(name)
        shutil.rmtree(self.folder / name / "ray", ignore_errors=True)
        self._given[name] = environment
        self._gone |= self._seen.pop(name, set())
        joins = [f"--address={self.net.address(HEAD)}:{GCS}", "--num-cpus=1"]
        command = [*RAY, f"--node-ip-address={self.net.address(name)}", *(OF_HEAD if name == HEAD else joins)]
        self._rays[name] = self.net.run(name, *command, env=self.environment(**environment), log="ray.log")

    def alive(self) -> dict[str, set[str]]:
        """The nodes that the head thinks alive, by host."""
        code = (
            f"import json, ray; ray.init(address='{self.net.address(HEAD)}:{GCS}', logging_level='ERROR'); "
            "print('ALIVE' + json.dumps([(n['NodeManagerAddress'], n['NodeID']) for n in ray.nodes() if n['Alive']]))"
        )
        said = self.folder / HEAD / "alive.log"
        said.unlink(missing_ok=True)
        self.net.run(HEAD, sys.executable, "-c", code, env=self.environment(), log=said.name).wait(UP)
        lines = [line[5:] for line in said.read_text().splitlines() if line.startswith("ALIVE")]
        found = json.loads(lines[-1]) if lines else []
        hosts = {
            name: {node for address, node in found if address == self.net.address(name)} for name in (HEAD, *NODES)
        }
        self._seen = {name: nodes for name, nodes in hosts.items() if nodes}
        return self._seen

    def until_alive(self, *names: str) -> None:
        deadline = time.monotonic() + UP
        while (alive := self.alive()).keys() != {HEAD, *names} or self._gone.intersection(chain(*alive.values())):
            assert time.monotonic() < deadline, f"alive: {alive}"
            for name in (HEAD, *names):
                if self._rays[name].poll() is not None:  # on a busy machine it gives up after 30 s
                    self.node(name, **self._given[name])
            time.sleep(1)

    def store(self, name: str = "") -> Store:
        """A run's root, as the test sees it."""
        return Store(f"s3://night/{name or 'x'}", endpoint_url=self.endpoint, key=KEY, secret=SECRET)

    def requests(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def tell_store(self, what: str) -> None:
        urllib.request.urlopen(f"{self.endpoint}/{what}", data=b"", timeout=20).close()

    def until_noted(self, status: str, **fields: str) -> dict[str, str]:
        """The first write that the store noted with a status that begins so, and those fields."""
        deadline = time.monotonic() + UP
        while True:
            for request in self.requests():
                if request["status"].startswith(status) and fields.items() <= request.items():
                    return request
            assert time.monotonic() < deadline, self.requests()[-20:]
            time.sleep(0.2)

    def well(self) -> None:
        """Every host is there again as it should be, its links and its clock, too."""
        self.net.heal()
        for name in NODES:
            if self._given[name] or not self.net.pids(name):
                self.node(name)
        self.until_alive(*NODES)

    def clock(self, seconds: int) -> dict[str, str]:
        """The environment of processes whose wall clock is off by so many seconds; skips where that can't be made."""
        if not shutil.which("cc"):
            pytest.skip("needs a C compiler, for a clock that is off")
        for name in (HEAD, *NODES):
            library, source = self.folder / name / "off_by.so", Path(__file__).with_name("off_by.c")
            subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        return {"LD_PRELOAD": "/tmp/off_by.so", "OFF_BY": str(seconds)}

    def driver(self, rows: list[dict], name: str = "", patience: float = 0.0, **environment: str) -> "Driver":
        self._runs += 1
        return Driver(self, rows, name or f"run-{self._runs}", patience, environment)

    def close(self) -> None:
        self.net.close()


# What no job can say: how long the driver waits for the store.
WITH_PATIENCE = """
from dataclasses import replace
from flowcache.cli.main import main
from flowcache.inputs.job import JobSpec
run_options = JobSpec.run_options
JobSpec.run_options = lambda spec, *rest: replace(run_options(spec, *rest), patience={})
main()
"""


class Driver:
    """`flowcache render` on the head."""

    def __init__(self, hosts: Hosts, rows: list[dict], name: str, patience: float, environment: dict[str, str]):
        self.hosts, self.name, self.store, self.rows = hosts, name, hosts.store(name), rows
        home = hosts.folder / HEAD
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        job = f"manifest: /tmp/{name}.jsonl\noutput: s3://night/{name}\naddress: {hosts.net.address(HEAD)}:{GCS}\n"
        (home / f"{name}.yaml").write_text(job + RUN)
        self.log = home / f"{name}.log"
        self.begun = time.monotonic()
        code = ["-c", WITH_PATIENCE.format(patience)] if patience else ["-m", "flowcache.cli"]
        command = [sys.executable, *code, "render", "--job", f"/tmp/{name}.yaml", "--log-json"]
        self.process = hosts.net.run(HEAD, *command, env=hosts.environment(**environment), log=self.log.name)

    def said(self) -> str:
        return self.log.read_text()

    def until(self, segments: int) -> None:
        """So many segments are committed."""
        deadline = time.monotonic() + UP
        while sum(map(len, list_commits(self.store).segments.values())) < segments:
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()[-3000:]
            time.sleep(0.2)

    def until_said(self, text: str, seconds: float = UP) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()[-3000:]
            time.sleep(0.2)

    def ended(self, seconds: float = 600.0) -> int:
        """The exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still at it after {seconds:.0f} s: {self.said()[-3000:]}") from None

    def whole(self, calm: Store) -> None:
        """Every video is done with the bytes of the undisturbed run, and every segment was committed once."""
        assert self.ended() == 0, self.said()[-4000:]
        self.same(calm)
        marked = Counter(request["path"] for request in self.hosts.requests() if self._commits(request))
        videos = len(self.rows)
        assert set(marked.values()) == {1} and len(marked) == SEGMENTS * videos + videos, marked

    def same(self, calm: Store) -> None:
        """What the store shows is what an undisturbed run makes of these rows."""
        commits, right = read_commits(self.store), chunks(read_commits(calm))
        assert commits.done == {row["id"] for row in self.rows} and not commits.dead_letters
        assert chunks(commits) == {name: right[name] for name in commits.done}
        report = verify(self.store)
        assert report.sound, [str(problem) for problem in report.problems]

    def _commits(self, request: dict[str, str]) -> bool:
        """Whether it created a marker or a DONE of this run."""
        return f"/{self.name}/_commits/" in request["path"] and request["status"].startswith("200")


__all__ = ["HEAD", "NODES", "OUTSIDE", "STORE", "Driver", "Hosts"]
