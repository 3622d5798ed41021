"""The driver is SIGKILLed at each step of the protocol, run after run, and the outcome is as if nothing had been."""

import signal
import time

import pytest

from tests.fault.outcome import outcome

# What is in the store grows from line to line. "seen": killed as soon as a worker has written such an object.
STEPS = [
    ("before", r"^_run/[0-9a-f]+\.json"),
    ("seen", "media/long/init.mp4"),
    ("seen", "media/long/00002.*.m4s"),
    ("seen", "_state/long/00000.*.safetensors"),
    ("seen", "_commits/long/00000.json"),
    ("before", r"index\.m3u8"),
    ("after", r"index\.m3u8"),
    ("seen", "media/long/00005.*.m4s"),
    ("seen", "_commits/long/00001.json"),
    ("before", "DONE"),
    ("before", "^meta/"),
    ("after", "^meta/"),
    ("before", "_SUCCESS"),
]


def killed(process) -> None:
    """Wait for the process to have died of SIGKILL."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors


def kill_when_seen(process, output, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not list(output.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{pattern} never came"
        time.sleep(0.001)
    process.kill()
    killed(process)


@pytest.fixture
def undisturbed(drive, tmp_path):
    process = drive(tmp_path / "undisturbed")
    assert process.wait(120) == 0, process.communicate()[1]
    return outcome(tmp_path / "undisturbed")


@pytest.mark.slow  # the short soak kills drivers too, and test_every_operation simulated ones at each write
def test_killed_at_each_step(drive, undisturbed, tmp_path):
    output = tmp_path / "disturbed"
    for when, pattern in STEPS:
        if when == "seen":
            kill_when_seen(drive(output), output, pattern)
        else:
            killed(drive(output, deadly=(when, pattern)))
        assert not (output / "_SUCCESS").exists()
    process = drive(output)
    assert process.wait(120) == 0, process.communicate()[1]
    assert outcome(output) == undisturbed
