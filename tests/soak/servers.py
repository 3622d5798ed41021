"""S3 servers that a soak can stop, kill and start again: Ceph where it is installed, else moto."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "ceph-s3"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_up(url: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it answers, if only with a refusal
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"{url} does not answer")


class Ceph:
    """A Ceph object gateway; killed, it comes back with the objects, which another process holds."""

    name = "Ceph"

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="soak-ceph-")
        port = str(free_port())
        done = subprocess.run([TOOL, "start", self.folder, port], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"Ceph did not start: {done.stderr}")
        settings = dict(line.split("=", 1) for line in done.stdout.splitlines())
        self.url = settings["AWS_ENDPOINT_URL"]
        self.key, self.secret = settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"]

    @property
    def pid(self) -> int:
        return int(Path(self.folder, "pids", "client.rgw").read_text())

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def start(self) -> None:
        environment = {**os.environ, "CEPH_CONF": f"{self.folder}/ceph.conf"}
        command = ["radosgw", "-n", "client.rgw", "--setuser", "root", "--setgroup", "root"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        wait_until_up(self.url)

    def close(self) -> None:
        subprocess.run([TOOL, "stop", self.folder], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Moto:
    """moto's server keeps its objects in its own memory: it is stopped and goes on, in place of being killed."""

    name, key, secret = "moto", "key", "secret"

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_up(self.url)

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def start(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def server(name: str) -> Ceph | Moto:
    """`name`: ceph, moto, or auto for Ceph where its packages are installed and we are root."""
    if name == "auto":
        name = "ceph" if shutil.which("radosgw") and os.getuid() == 0 else "moto"
    return Ceph() if name == "ceph" else Moto()
