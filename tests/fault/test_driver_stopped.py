"""A polite stop (SIGTERM, as Kubernetes and spot instances send) ends the run cleanly; the next one goes on."""

import itertools
import json
import signal
import time

import pytest

from benchmarks.footprint import descendants
from flowcache.storage.objects.store import Store
from flowcache.storage.status import status
from tests.fault.local_ray import LocalRun, alive


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


@pytest.mark.parametrize("name", ["gcs_server", pytest.param("raylet", marks=pytest.mark.slow)])
def test_sigterm_while_ray_starts_ends_cleanly_and_leaves_no_process(tmp_path, name):
    run = LocalRun(tmp_path, 2)
    try:
        run.until(lambda: run.pids(name))
        run.known |= descendants(run.process.pid, set())
        run.process.terminate()
        code, said = run.ended(90)
        assert code == 5 and "SIGTERM came" in said and "Traceback" not in said, said
        assert not run.committed and not alive(run.known)
        assert status(Store(str(run.output))).exit_code == 5
    finally:
        run.close()


@pytest.mark.slow
def test_sigterm_while_texts_are_encoded_ends_cleanly(drive, manifest, tmp_path):
    colours, shapes, ways = ("red", "green", "white", "black"), ("circle", "square", "triangle"), ("left", "up", "down")
    drawn = itertools.product(colours, shapes, ways)
    texts = [f"a {colour} {shape} moving {where} on a blue background" for colour, shape, where in drawn]
    rows = ({"id": f"v{n}", "prompt": text, "frames": 9, "steps": 2} for n, text in enumerate(texts))
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    process = drive(tmp_path / "out")
    said = ""
    while "encoding 37 texts" not in said:  # the negative one, too
        line = process.stderr.readline()
        assert line, said
        said += line
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, more = process.communicate(timeout=60)
    assert process.returncode == 5 and "SIGTERM came" in more and "Traceback" not in more, more
    assert not list((tmp_path / "out").glob("_commits/*/*"))
