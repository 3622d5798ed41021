"""Containers of the built image by runc, as a kubelet has them run: user, read-only root, capabilities, volumes and
environment of the pod's spec, in a network where nothing but a store can be reached."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.overlays import ROOT

TOOLS = ("buildah", "debootstrap", "runc", "ip", "curl")
ADDRESS = "10.99.0.2"  # of the pods, which share a network
STORE = 9000  # its port
PROBED = {"kcore", "keys", "timer_list", "sched_debug"}  # of /proc, hidden in containers
ENDS = 20.0  # seconds for what is not a container


def needs_containers() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid():
        pytest.skip(f"no image here: it is built and run by root with {', '.join(missing or TOOLS)}")


def buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", "--log-level=error", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Network:
    """A loopback of its own with the pods' address on it, and moto's S3 server; no way out."""

    def __init__(self, log: Path):
        self.name = f"fcpod{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.name], check=True, timeout=ENDS)
        for command in (f"addr add {ADDRESS}/32 dev lo", "link set lo up"):
            subprocess.run(["ip", "-n", self.name, *command.split()], check=True, timeout=ENDS)
        server = [sys.executable, "-m", "moto.server", "-H", ADDRESS, "-p", str(STORE)]
        self.store = subprocess.Popen(self._inside(server), stderr=log.open("w"))

    def _inside(self, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def ask(self, url: str, *options: str) -> str:
        """By curl; empty where nothing answers."""
        command = ["curl", "--silent", "--fail", "--max-time", "5", *options, url]
        return subprocess.run(self._inside(command), capture_output=True, text=True).stdout

    def close(self) -> None:
        self.store.terminate()
        self.store.wait(ENDS)
        subprocess.run(["ip", "netns", "del", self.name], check=True, timeout=ENDS)


class Image:
    """`root`: its files, mounted. `config`: what it says of environment, user and folder."""

    def __init__(self, name: str):
        self.container = buildah("from", "--pull-never", name)
        self.root = Path(buildah("mount", self.container))
        self.config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", name))["OCIv1"]["config"]

    def close(self) -> None:
        buildah("rm", self.container)


class Container:
    """One container of a pod's spec, its first, that runs `command`. folder: for its volumes, bundle and log."""

    def __init__(self, image: Image, network: Network, spec: dict[str, Any], folder: Path, *command: str, **env: str):
        folder.mkdir(parents=True)
        self.name, self.folder = f"{network.name}-{folder.name}", folder
        config = self._config(image, network, spec, env, command)
        (folder / "config.json").write_text(json.dumps(config))
        self._runc = ["runc", "--root", str(folder.parent / "runc")]
        self._log = (folder / "log").open("w")
        start = [*self._runc, "run", "--bundle", str(folder), self.name]
        self.process = subprocess.Popen(start, stdout=self._log, stderr=subprocess.STDOUT)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ended(self, within: float) -> int:
        return self.process.wait(within)

    def run(self, *command: str) -> subprocess.CompletedProcess:
        """As a hook or a probe of it."""
        return subprocess.run([*self._runc, "exec", self.name, *command], capture_output=True, text=True)

    def close(self) -> None:
        subprocess.run([*self._runc, "delete", "--force", self.name], capture_output=True)
        self.process.wait(ENDS)
        self._log.close()

    def _config(
        self, image: Image, network: Network, spec: dict[str, Any], env: dict[str, str], command: tuple[str, ...]
    ) -> dict[str, Any]:
        (container, *_), whole = spec["containers"], spec["securityContext"]
        own = container["securityContext"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        given = {entry["name"]: entry["value"] for entry in container.get("env", ())}
        variables = [
            *image.config["Env"],
            "HOME=/home/ray",
            *(f"{name}={value}" for name, value in (given | env).items()),
        ]
        spaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
        return {
            "ociVersion": "1.0.2",
            "hostname": "pod",
            "root": {"path": str(image.root), "readonly": own["readOnlyRootFilesystem"]},
            "process": {
                "args": list(command),
                "cwd": image.config["WorkingDir"],
                "env": [*image.config["Env"], *variables],
                "user": {"uid": whole["runAsUser"], "gid": whole["runAsGroup"]},
                "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
                "noNewPrivileges": not own["allowPrivilegeEscalation"],
            },
            "mounts": [*SYSTEM, *self._volumes(spec, container)],
            "linux": {
                "namespaces": [*spaces, {"type": "network", "path": f"/run/netns/{network.name}"}],
                "maskedPaths": [f"/proc/{name}" for name in PROBED],
                "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
            },
        }

    def _volumes(self, spec: dict[str, Any], container: dict[str, Any]) -> list[dict[str, Any]]:
        hosts = self.folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{ADDRESS} pod\n")
        mounts = [_bind("/etc/hosts", hosts, read_only=True)]
        kinds = {volume["name"]: volume for volume in spec.get("volumes", ())}
        for mount in container.get("volumeMounts", ()):
            kind = kinds[mount["name"]]
            if "configMap" in kind:
                assert kind["configMap"] == {"name": "flowcache-jobs"}
                mounts.append(_bind(mount["mountPath"], ROOT / "jobs", read_only=True))
            else:
                assert kind["emptyDir"] == {}
                folder = self.folder / mount["name"]
                folder.mkdir()
                os.chown(folder, 0, spec["securityContext"].get("fsGroup", 0))
                folder.chmod(0o2777)
                mounts.append(_bind(mount["mountPath"], folder, read_only=mount.get("readOnly", False)))
        return mounts


def _bind(where: str, source: Path, read_only: bool) -> dict[str, Any]:
    options = ["rbind", "ro" if read_only else "rw"]
    return {"destination": where, "type": "bind", "source": str(source), "options": options}


def _tmpfs(where: str, *options: str) -> dict[str, Any]:
    return {"destination": where, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", *options]}


SYSTEM = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    _tmpfs("/dev", "mode=755", "size=65536k"),
    _tmpfs("/dev/shm", "nodev", "mode=1777"),  # the operator's, for Ray's objects
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
]
