"""A Ray with dashboard, job API, token authentication and metrics, as a cluster has them."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
REPORT_EVERY = 500  # ms between two reports of metrics, else 10 s
STARTS_WITHIN = 120  # seconds


@dataclass(frozen=True)
class Head:
    """`url`: of the dashboard. `metrics`: of the Prometheus endpoint. `client`: the environment of who may submit."""

    url: str
    metrics: str
    client: dict[str, str]


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """Started as an operator starts it, in processes of its own: the mode of authentication is one per process."""
    dashboard, metrics, clients = free_port(), free_port(), free_port()
    client = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(32).hex()}
    client |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    folder = tempfile.mkdtemp(prefix="ray-")  # short: paths of sockets end at 107 characters
    arguments = {
        "port": "0",
        "num-cpus": "2",
        "temp-dir": folder,
        "dashboard-port": str(dashboard),
        "ray-client-server-port": str(clients),
        "metrics-export-port": str(metrics),
        "system-config": f'{{"metrics_report_interval_ms": {REPORT_EVERY}}}',
        "disable-usage-stats": "",
        "head": "",
        "block": "",
    }
    command = [
        BIN / "ray",
        "start",
        *(f"--{name}" + (f"={value}" if value else "") for name, value in arguments.items()),
    ]
    with open(Path(folder) / "start.log", "w+") as log:
        process = subprocess.Popen(command, env=client, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(f"http://127.0.0.1:{dashboard}/api/version", process, log)
            yield Head(f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{metrics}/metrics", client)
        finally:
            process.terminate()
            process.wait(60)
            shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen, log) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it answers: the token is missing
        except OSError:
            time.sleep(0.3)
    log.seek(0)
    pytest.fail(f"ray start did not come up:\n{log.read()}")
