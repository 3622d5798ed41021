"""Where commands print to a full disk or a closed stream: a sentence or nothing, and never a traceback."""

import subprocess
import sys

import pytest

from flowcache.storage.objects.store import Store
from tests.unit.storage.samples import Studio, request


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = Store(str(tmp_path_factory.mktemp("run") / "out"))
    Studio(made, (request("cat", 1),)).run()
    return made.url


def told(command: str, streams: str) -> tuple[int, str, str]:
    line = f"{sys.executable} -m flowcache.cli {command} {streams}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("command", "streams", "code", "said"),
    [
        ("status {root}", ">/dev/full", 1, "error: cannot print: no space left on device\n"),
        ("status {root} --json", ">&-", 0, ""),
        ("status {root}-2", "2>/dev/full", 2, ""),
        ("status {root}-2", "<&- >&- 2>&-", 2, ""),
        ("status {root} --follow", "| head -c0", 0, ""),
    ],
)
def test_what_cannot_be_printed_changes_nothing_else(root, command, streams, code, said):
    assert told(command.format(root=root), streams) == (code, "", said)
