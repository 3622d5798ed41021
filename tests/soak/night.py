"""What a soak renders, and how it ends: the manifest, the commands, the comparison."""

import json
import os
import subprocess
import sys
from pathlib import Path

from flowcache.storage.commits import Commits, read_commits
from flowcache.storage.layout import init_key
from flowcache.storage.objects.store import Store
from flowcache.storage.verify import verify
from tests.soak.proxy import FaultyProxy

ROOT = Path(__file__).parents[2]
PROMPT = "a red circle moving right on a blue background"
LONG_EVERY, POISONED_EVERY = 6, 40  # of the videos: two segments; one that can't be committed


def manifest(path: Path, videos: int) -> list[str]:
    """Write it; returns the ids of the poisoned videos."""
    rows = [
        {"id": f"v{n:03d}", "prompt": PROMPT, "seed": n, "steps": 1, "frames": 69 if n % LONG_EVERY == 0 else 9}
        for n in range(videos)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [row["id"] for row in rows[1::POISONED_EVERY]]


def poison(proxy: FaultyProxy, videos: list[str]) -> None:
    """Their init segment is another encoder's and stays so, so that every attempt at them is refused."""
    proxy.stuck |= {f"/{init_key(name)}": b"of another encoder" for name in videos}


class Driver:
    """`flowcache render` in a process of its own, started again whenever it was killed."""

    def __init__(self, path: Path, output: str, address: str, gangs: int, stall: float, log: Path):
        job = path.with_name("job.yaml")
        job.write_text(
            f"manifest: {path}\noutput: {output}\naddress: {address}\ngangs: {gangs}\n"
            f"retries: 1\ninfra_retries: 100\nsegment_timeout: {stall}\n"
        )
        self.command = [sys.executable, "-m", "flowcache.cli", "render", "--job", str(job)]
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.log = log
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log, cwd=ROOT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def ended(self) -> int | None:
        return self.process.poll()


def chunks(commits: Commits) -> dict[str, list[tuple[int, str]]]:
    """By video, each chunk's number and sha256."""
    return {name: [(c.chunk, c.sha256) for m in commits.all(name) for c in m.chunks] for name in commits.markers}


def compare(calm: Store, stormy: Store, poisoned: list[str]) -> dict[str, int]:
    """AssertionError where the night lost something; else what was counted."""
    wanted, commits = read_commits(calm), read_commits(stormy)
    expected = wanted.done - set(poisoned)
    assert commits.done == expected, f"not done: {expected - commits.done}; too many: {commits.done - expected}"
    assert set(commits.dead_letters) == set(poisoned), f"dead: {sorted(commits.dead_letters)}, poisoned: {poisoned}"
    for letter in commits.dead_letters.values():
        assert "differs from what this worker's encoder makes" in letter.cause, letter.cause
    right, made = chunks(wanted), chunks(commits)
    different = [name for name in sorted(expected) if made[name] != right[name]]
    assert not different, f"other bytes than without faults: {different}"
    report = verify(stormy)
    assert report.sound, [str(problem) for problem in report.problems]
    return {**report.counts, "dead": len(commits.dead_letters), "lost": 0}
