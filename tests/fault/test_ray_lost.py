"""Ray's own processes are killed and stopped under a run: it ends at once with one sentence, and a rerun goes on."""

import signal

import pytest

from benchmarks.footprint import descendants
from flowcache.storage.objects.store import Store
from flowcache.storage.status import status
from flowcache.storage.verify import verify
from tests.fault.local_ray import LocalRun, alive, send

ENDS = "What is committed stays, and the same command goes on from there"
VIDEOS = 300  # longer than any silence that ends a run; two a second
RAYLET, HEAD = "raylet", "gcs_server"


@pytest.fixture
def run(tmp_path):
    made = LocalRun(tmp_path, VIDEOS)
    yield made
    made.close()


def goes_on(run: LocalRun) -> None:
    """Of a rerun no more is asked than two more videos; to the end it would take minutes."""
    before = run.committed
    run.start()
    run.until(lambda: run.committed > before + 1 or run.committed == VIDEOS)
    run.process.terminate()
    code, said = run.ended(120)
    assert code in (0, 5) and "Traceback" not in said, said
    assert verify(Store(str(run.output)), decode=False).sound


@pytest.mark.parametrize(
    ("names", "number", "why", "seconds"),
    [
        ((RAYLET,), signal.SIGKILL, "its process on this machine (the raylet) has died", 60),
        pytest.param((HEAD,), signal.SIGKILL, "its head (the GCS process) has died", 60, marks=pytest.mark.slow),
        pytest.param((RAYLET, HEAD), signal.SIGTERM, "the local Ray is lost", 60, marks=pytest.mark.slow),  # ray stop
        pytest.param((HEAD,), signal.SIGSTOP, "has not answered for 4", 120, marks=pytest.mark.slow),
        pytest.param((RAYLET,), signal.SIGSTOP, "(the raylet) has died or was stopped", 180, marks=pytest.mark.slow),
    ],
    ids=["raylet killed", "head killed", "ray stop", "head stopped", "raylet stopped"],
)
def test_a_lost_ray_ends_the_run_at_once(run, names, number, why, seconds):
    run.until(lambda: run.committed)
    struck = run.strike(number, *names)
    code, said = run.ended(seconds)
    assert code == 1 and "error: the local Ray is lost: " in said and why in said and ENDS in said, said
    assert "Traceback" not in said
    assert status(Store(str(run.output))).exit_code == 1
    send(struck if number == signal.SIGSTOP else (), signal.SIGCONT)  # only then can it end
    assert not alive(run.known)
    goes_on(run)


@pytest.mark.slow
@pytest.mark.parametrize("name", [HEAD, RAYLET])
def test_what_stops_for_good_at_the_end_of_a_night_ends_it_too(tmp_path, name):
    """Nothing is left to start; a call into Ray that gives the gang back, or leaves it, never ends."""
    run = LocalRun(tmp_path, 4)
    try:
        run.until(lambda: run.committed)
        struck = run.strike(signal.SIGSTOP, name)
        code, said = run.ended(180)
        assert code == 1 and "error: the local Ray is lost: " in said and ENDS in said, said
        send(struck, signal.SIGCONT)
        assert not alive(run.known)
        run.start()
        run.until((run.output / "_SUCCESS").exists)
        assert run.ended(60)[0] == 0 and verify(Store(str(run.output)), decode=False).sound
    finally:
        run.close()


@pytest.mark.slow
def test_sigquit_ends_the_run_as_a_kill_does_and_leaves_no_process(run):
    run.until(lambda: run.committed)
    run.known |= descendants(run.process.pid, set())
    run.process.send_signal(signal.SIGQUIT)
    code, _ = run.ended(30)
    assert code == -signal.SIGQUIT and not alive(run.known)
    goes_on(run)


@pytest.mark.slow
def test_a_head_that_stops_for_a_while_costs_nothing(tmp_path):
    run = LocalRun(tmp_path, 4)
    try:
        run.until(lambda: run.committed)
        (pid,) = run.strike(signal.SIGSTOP, HEAD)
        run.until(lambda: alive([pid], 15.0))
        run.strike(signal.SIGCONT, HEAD)
        code, said = run.ended(240)
        assert code == 0 and "lost" not in said, said
    finally:
        run.close()
