"""`flowcache render` on a Ray of its own, and the processes that this consists of."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.footprint import descendants

BUSY = "Ray did not start on this machine"  # it has half a minute; the same command tries again
PROMPT = "a red circle moving right on a blue background"


class LocalRun:
    """A night of many videos; `pids` finds processes of its Ray by what their command begins with."""

    def __init__(self, folder: Path, videos: int = 30, *options: str):
        manifest, self.output = folder / "night.jsonl", folder / "out"
        rows = ({"id": f"v{n:02d}", "prompt": PROMPT, "frames": 9, "steps": 30, "seed": n} for n in range(videos))
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.command = [sys.executable, "-m", "flowcache.cli", "render", str(manifest)]
        self.command += ["--output", str(self.output), "--gangs", "1", *options]
        self.known: set[int] = set()  # processes of all starts
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell's `&` has it ignored, and children inherit that
        self.process = subprocess.Popen(self.command, env=environment, stderr=subprocess.PIPE, text=True)

    @property
    def committed(self) -> int:
        return len(list(self.output.glob("_commits/*/00000.json")))

    def until(self, holds: Callable[[], object], seconds: float = 480.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if self.process.poll() is not None:
                said = self.process.communicate()[1]
                if self.process.returncode == 0 and holds():
                    return
                assert BUSY in said, said
                self.start()
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.05)

    def pids(self, *names: str) -> list[int]:
        return [pid for pid in descendants(self.process.pid, set()) if command(pid).startswith(names)]

    def strike(self, number: signal.Signals, *names: str) -> list[int]:
        """The processes that got the signal."""
        self.known |= descendants(self.process.pid, self.known)
        found = [pid for name in names for pid in self.pids(name)]
        assert len(found) >= len(names)
        for pid in found:
            os.kill(pid, number)
        return found

    def ended(self, seconds: float) -> tuple[int, str]:
        """Exit code and what was said."""
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said

    def close(self) -> None:
        """Nothing is left, whatever a test did."""
        left = descendants(self.process.pid, self.known)
        self.process.kill()
        send(left, signal.SIGKILL)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def command(pid: int) -> str:
    """The program's own name, or the title that a process gave itself."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return os.path.basename(words.partition("\0")[0])


def alive(pids: Iterable[int], seconds: float = 120.0) -> list[int]:
    """Those that are still there so long afterwards: Ray's agents end a minute after it."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
