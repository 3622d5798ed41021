"""Hosts in network namespaces, each with an address, a /tmp and a network link of its own, around one router.

What is cut is dropped by the router, silently, as by a firewall or a broken switch: neither end is told.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

WIRE = Path(__file__).with_name("wire.py")

ROUTER, OUTSIDE = "router", "outside"  # outside: where the test itself runs
START = 30.0  # seconds


def lacking() -> str | None:
    """Why no such network can be made here; None: it can."""
    if sys.platform != "linux" or os.getuid() or not shutil.which("ip") or not shutil.which("unshare"):
        return "needs root on Linux with ip (package iproute2) and unshare"
    name = f"fcx{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces can't be made: {made.stderr.strip()}"
    ip("netns", "del", name)
    return None


def ip(*arguments: str, inside: str = "") -> None:
    where = ["-n", inside] if inside else []
    done = subprocess.run(["ip", *where, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join([*where, *arguments])}: {done.stderr.strip()}")


class Network:
    """`folder` holds a folder for each host, its /tmp."""

    def __init__(self, folder: Path, *names: str):
        self.folder, self.names = folder, (OUTSIDE, *names)
        self._mark, self._base = f"fc{os.getpid()}", f"10.{100 + os.getpid() % 100}"
        self._wires: dict[str, subprocess.Popen] = {}
        self._cuts: set[tuple[str, str]] = set()
        ip("netns", "add", self._space(ROUTER))
        self.run(ROUTER, "sysctl", "-qw", "net.ipv4.ip_forward=1").wait()
        for name in self.names:
            if name != OUTSIDE:
                ip("netns", "add", self._space(name))
                ip("link", "set", "lo", "up", inside=self._space(name))
                (folder / name).mkdir(mode=0o1777)
            self.link(name)

    def close(self) -> None:
        for name in (*self.names[1:], ROUTER):
            self.kill(name)
        for wire in self._wires.values():
            wire.kill()
            wire.wait()
        for name in (*self.names[1:], ROUTER):
            ip("netns", "del", self._space(name))

    def address(self, name: str) -> str:
        return f"{self._base}.{self.names.index(name)}.2"

    def _space(self, name: str) -> str:
        return "" if name == OUTSIDE else f"{self._mark}-{name}"

    def link(self, name: str, **slow: float) -> None:
        """A new link to the router in place of the one that is there. slow: of `wire.py`."""
        number = self.names.index(name)
        ends, homes = (f"{self._mark}h{number}", f"{self._mark}r{number}"), (self._space(name), self._space(ROUTER))
        wire = self._wires.pop(name, None)
        if wire:
            wire.kill()
            wire.wait()
        else:
            subprocess.run(["ip", "-n", homes[1], "link", "del", ends[1]], capture_output=True)
        if slow:
            self._wires[name] = self._wire(ends, slow)
        else:
            ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for end, home, host in zip(ends, homes, (2, 1), strict=True):
            if home:
                ip("link", "set", end, "netns", home)
            ip("addr", "add", f"{self._base}.{number}.{host}/24", "dev", end, inside=home)
            ip("link", "set", end, "up", inside=home)
        aim = f"{self._base}.0.0/16" if name == OUTSIDE else "default"
        ip("route", "replace", aim, "via", f"{self._base}.{number}.1", inside=homes[0])

    def _wire(self, ends: tuple[str, str], slow: dict[str, float]) -> subprocess.Popen:
        options = [f"--{key}={value}" for key, value in slow.items()]
        wire = subprocess.Popen([sys.executable, WIRE, *ends, *options], stdout=subprocess.PIPE, text=True)
        assert wire.stdout and wire.stdout.readline() == "ready\n"
        return wire

    def cut(self, one: str, other: str) -> None:
        """Neither hears of the other any more."""
        for pair in ((one, other), (other, one)):
            if pair not in self._cuts:
                self._cuts.add(pair)
                ip("rule", "add", *self._rule(pair), inside=self._space(ROUTER))

    def heal(self) -> None:
        while self._cuts:
            ip("rule", "del", *self._rule(self._cuts.pop()), inside=self._space(ROUTER))

    def _rule(self, pair: tuple[str, str]) -> list[str]:
        return ["from", self.address(pair[0]), "to", self.address(pair[1]), "blackhole"]

    def run(self, name: str, *command: str, env: dict[str, str] | None = None, log: str = "") -> subprocess.Popen:
        """On that host. log: a file in the host's folder, else what it says is dropped."""
        place = self.folder / name
        own = 'mount --make-rprivate / && { [ ! -d "$0" ] || mount --bind "$0" /tmp; } && exec "$@"'
        inside = ["ip", "netns", "exec", self._space(name), "unshare", "--mount", "sh", "-c", own, str(place), *command]
        with open(place / log if log else os.devnull, "ab") as out:
            return subprocess.Popen(inside, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def pids(self, name: str) -> list[int]:
        found = subprocess.run(["ip", "netns", "pids", self._space(name)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def kill(self, name: str) -> None:
        """The host loses its power: every process on it is gone at once."""
        deadline = time.monotonic() + START
        while (pids := self.pids(name)) and time.monotonic() < deadline:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it went with another one
            time.sleep(0.05)
