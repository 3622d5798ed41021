"""A head's pod as processes of this machine, in a PID namespace of their own, ended as a kubelet ends one."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flowcache.cli.stop import PROCESSES, alive
from tests.cluster.ray_head import answers, environment, new_address

USERS = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
NAMESPACE = ["unshare", *USERS, "--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]


def needs_namespaces() -> None:
    if shutil.which("nsenter") is None or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespaces here: pods are made of them (unshare, nsenter)")


class HeadPod:
    """Of the pod's spec its environment, hook and grace count, its resources do not."""

    def __init__(self, spec: dict[str, Any]):
        (container,) = spec["containers"]
        self.folder = tempfile.mkdtemp(prefix="ray-")
        self.address = new_address(self.folder)
        self.url = self.address.url
        self.env = environment()
        self.hook = container["lifecycle"]["preStop"]["exec"]["command"]
        self.grace: float = spec["terminationGracePeriodSeconds"]
        self.hooked: float | None = None  # seconds that the hook took
        self.took: float | None = None  # and the whole end
        self._log = open(Path(self.folder) / "start.log", "w+")  # noqa: SIM115, closed with the pod
        self.process = subprocess.Popen(
            [*NAMESPACE, *self.address.command], env=self.env, stdout=self._log, stderr=subprocess.STDOUT
        )
        self._ending: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def ready(self) -> bool:
        """Waits until it is; False where it died before."""
        return all(answers(url, lambda: self.running) for url in self.address.healthy)

    def delete(self) -> None:
        """As `kubectl delete pod` does: it is asked to end, and goes on for a while."""
        if self.running and self._ending is None:
            self._ending = threading.Thread(target=self._end)
            self._ending.start()

    def _end(self) -> None:
        begin, first = time.monotonic(), self._first()
        inside = ["nsenter", "--target", str(first), *(["--user"] if USERS else []), "--pid", "--mount"]
        subprocess.run([*inside, *self.hook], env=self.env, timeout=self.grace, check=True, capture_output=True)
        self.hooked = time.monotonic() - begin
        os.kill(first, signal.SIGTERM)
        while alive(first) and time.monotonic() - begin < self.grace:
            time.sleep(0.1)
        self.took = time.monotonic() - begin
        self.lose()

    def lose(self) -> None:
        """As a machine that fails."""
        if self.running:
            os.kill(self._first(), signal.SIGKILL)  # and with it all of its namespace
        self.process.wait(30)

    def remove(self) -> None:
        if self._ending is not None:
            self._ending.join(self.grace + 30)
        self.lose()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _first(self) -> int:
        """The namespace's first process, as it is called outside."""
        task = PROCESSES / str(self.process.pid) / "task" / str(self.process.pid)
        return int((task / "children").read_text().split()[0])
