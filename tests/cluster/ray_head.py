"""How a head is started, on ports of its own: the mode of authentication is one per process, so in one of its own."""

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CLUSTER = ROOT / "cluster" / "base" / "raycluster.yaml"
# Metrics every half second, not ten; a busy machine may be slow to start the node's agent.
SYSTEM = {"metrics_report_interval_ms": 500, "agent_register_timeout_ms": 120_000}
STARTS_WITHIN = 180  # seconds, beside other work


@dataclass(frozen=True)
class Address:
    url: str  # of the dashboard
    metrics: str
    healthy: tuple[str, ...]  # what a readiness probe asks: the agent that starts jobs is up, too
    command: tuple[str, ...]  # that starts the head there, and stays


def new_address(folder: str) -> Address:
    """folder: of its session; a short path, since paths of sockets end at 107 characters."""
    dashboard, metrics, clients, agent = (free_port() for _ in range(4))
    arguments = {
        "port": "0",
        "num-cpus": "2",
        "temp-dir": folder,
        "dashboard-port": str(dashboard),
        "ray-client-server-port": str(clients),
        "metrics-export-port": str(metrics),
        "dashboard-agent-listen-port": str(agent),
        "system-config": json.dumps(SYSTEM),
        "disable-usage-stats": "",
        "head": "",
        "block": "",
    }
    options = (f"--{name}" + (f"={value}" if value else "") for name, value in arguments.items())
    command = (str(BIN / "ray"), "start", *options)
    url = f"http://127.0.0.1:{dashboard}"
    healthy = f"{url}/api/gcs_healthz", f"http://127.0.0.1:{agent}/api/local_raylet_healthz"
    return Address(url, f"http://127.0.0.1:{metrics}/metrics", healthy, command)


def environment() -> dict[str, str]:
    """Of a head as cluster/ has it, and of who may talk to it: with a token of its own."""
    (container,) = yaml.safe_load(CLUSTER.read_text())["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    found = os.environ | {entry["name"]: entry["value"] for entry in container["env"]}
    found |= {"RAY_raylet_start_wait_time_s": "90"}  # 60 are too few beside other work
    found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(32).hex()}
    return found | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str, alive: Callable[[], bool]) -> bool:
    """Whether something answers there before it has died, within the time that a start may take."""
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until and alive():
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return True
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return True  # the token is missing
            time.sleep(0.3)
        except OSError:
            time.sleep(0.3)
    return False
