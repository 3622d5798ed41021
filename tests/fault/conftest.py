import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def manifest(tmp_path) -> Path:
    """Two segments that depend on each other, so that every kind of object is written; two steps, for speed."""
    row = {
        "id": "long",
        "prompt": "a red circle moving right on a blue background",
        "frames": 69,
        "steps": 2,
    }
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def command(*args: str, deadly: tuple[str, str] | None = None) -> list[str]:
    """The command line, in a process that kills itself where `deadly` says."""
    if deadly:
        return [sys.executable, str(HERE / "killed_driver.py"), *deadly, *args]
    return [sys.executable, "-m", "flowcache.cli", *args]


@pytest.fixture
def drive(cluster, manifest):
    """drive(output, deadly=None) -> a running driver process."""

    def start(output: Path, deadly=None) -> subprocess.Popen:
        args = ["render", str(manifest), "--output", str(output), "--address", cluster, "--gangs", "1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command(*args, deadly=deadly), env=environment, stderr=subprocess.PIPE, text=True)

    return start
