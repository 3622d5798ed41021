"""A polite stop (SIGTERM, as Kubernetes and spot instances send) ends the run cleanly; the next one goes on."""

import json
import signal
import time


def test_sigterm_ends_cleanly_and_the_run_goes_on(drive, tmp_path):
    output = tmp_path / "out"
    process = drive(output)
    deadline = time.monotonic() + 120
    while not list(output.glob("media/long/00001.*.m4s")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 5 and "the same command goes on" in errors, errors
    assert "Traceback" not in errors and "SIGTERM came" in errors

    process = drive(output)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    done = json.loads((output / "_commits" / "long" / "DONE.json").read_text())
    assert done["chunks"] == 6
