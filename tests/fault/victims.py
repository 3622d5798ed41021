"""Gangs whose ranks strike themselves in the middle of a collective, and what is left of them afterwards.

Only the tests' actors do it: `victims` makes a class that takes the place of `RankActor`.
"""

import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import ray
import torch.distributed as dist
from ray.util import placement_group_table

from flowcache.progress.events import Note, SegmentFailed
from flowcache.runtime.actor import RankActor
from tests.fault.failures import Failures
from tests.listening import listening

DEAD = "Z", "X"  # states of a process that is no more than an entry


@dataclass(frozen=True)
class Fault:
    """In its `call`-th all-to-all (from 0) of a segment of `video`, `rank` gets the signal, once.

    sends: with its own parts on their way, else before any; the others wait for it either way. Call -1 of video "":
    before it joins its gang. late: a rank that comes up 8 s after the others, for as long as the fault has not struck.
    """

    video: str
    rank: int
    call: int
    number: signal.Signals
    sends: bool = False
    late: int = -1


def victims(faults: list[Fault], folder: Path) -> type[RankActor]:
    """Actors that note in `folder` their process and ports, when a fault struck, and all-to-alls."""

    class Victim(RankActor):
        def __init__(self, store, settings, gang, rank, world):
            if any(fault.late == rank and not (folder / f"fault-{i}").exists() for i, fault in enumerate(faults)):
                time.sleep(8)
            super().__init__(store, settings, gang, rank, world)

        def join_group(self, path):
            (folder / f"pid-{os.getpid()}").touch()
            self.exchange, self.calls, self.video = dist.all_to_all_single, -1, ""
            self.strike()
            dist.all_to_all_single = self.counted
            before = listening(os.getpid())
            found = super().join_group(path)
            for _, port in listening(os.getpid()) - before:
                (folder / f"port-{port}").touch()
            return found

        def render(self, task):
            self.calls, self.video = -1, task.request.id
            yield from super().render(task)
            (folder / f"exchanges-{self.calls + 1}-{self.video}").touch()

        def assist(self, task):
            self.calls, self.video = -1, task.request.id
            super().assist(task)

        def counted(self, received, sent, *sizes, group):
            self.calls += 1
            self.strike(lambda: self.exchange(received, sent, *sizes, group=group, async_op=True))
            return self.exchange(received, sent, *sizes, group=group)

        def strike(self, send=None):
            """The fault for this moment, if there is one and it was not given yet."""
            for index, fault in enumerate(faults):
                note = folder / f"fault-{index}"
                if (fault.video, fault.rank, fault.call) == (self.video, self.rank, self.calls) and not note.exists():
                    if fault.sends:
                        send()
                    note.write_text(str(time.time()))
                    os.kill(os.getpid(), fault.number)

    return Victim


class Noted(Failures):
    """When each failure was told, its cause, video and rank; notes and when they came."""

    def __init__(self):
        super().__init__()
        self.notes: list[tuple[float, str]] = []
        self.told: list[tuple[float, str, str, int]] = []
        self.struck: dict[int, float] = {}
        self.exchanges: dict[str, int] = {}

    def on(self, event):
        super().on(event)
        if isinstance(event, SegmentFailed):
            self.told.append((time.time(), event.cause, event.video, event.rank))
        elif isinstance(event, Note):
            self.notes.append((time.time(), event.message))


def struck(folder: Path) -> dict[int, float]:
    """When each fault struck, by its number."""
    return {int(note.name.partition("-")[2]): float(note.read_text()) for note in folder.glob("fault-*")}


def exchanges(folder: Path) -> dict[str, int]:
    """All-to-alls of the longest segment of each video."""
    noted = (note.name.split("-", 2) for note in folder.glob("exchanges-*"))
    return {video: calls for calls, video in sorted((int(calls), video) for _, calls, video in noted)}


def leftovers(folder: Path, address: str, seconds: float = 20.0) -> list[str]:
    """Processes, ports and placement groups of gangs that are still there, so long after their run."""
    deadline = time.monotonic() + seconds
    while (left := [*_processes(folder), *_ports(folder), *_groups(address)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _processes(folder: Path) -> list[str]:
    found = []
    for note in folder.glob("pid-*"):
        try:
            stat = Path("/proc", note.name.partition("-")[2], "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, _, rest = stat.rpartition(")")
        if "ray::" in name and rest.split()[0] not in DEAD:
            found.append(f"process {stat}")
    return found


def _ports(folder: Path) -> list[str]:
    found = []
    for note in folder.glob("port-*"):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(note.name.partition("-")[2]))) == 0:
                found.append(note.name)
    return found


def _groups(address: str) -> list[str]:
    ray.init(address=address, log_to_driver=False)
    try:
        return [
            group["placement_group_id"] for group in placement_group_table().values() if group["state"] != "REMOVED"
        ]
    finally:
        ray.shutdown()
