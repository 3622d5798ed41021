"""Why a run starts nothing more, and how long what is under way may take."""

import os
import signal
import time

import pytest

from flowcache.inputs.options import RunOptions
from flowcache.scheduler.stopping import LATE, TOLD, StoppedEarly, Stopping, left_early, on_sigterm
from flowcache.scheduler.summary import Summary


@pytest.fixture(autouse=True)
def handler_kept():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def told(times: int) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGTERM)


def test_sigterms_within_the_grace_are_one_and_the_run_may_still_write():
    stopping = Stopping(RunOptions(grace=60))
    with on_sigterm(stopping) as listen:
        listen()
        told(3)
    assert stopping.why == TOLD


def test_a_sigterm_after_the_grace_ends_the_run():
    stopping = Stopping(RunOptions(grace=0.05))
    with pytest.raises(KeyboardInterrupt), on_sigterm(stopping) as listen:
        listen()
        told(1)
        time.sleep(0.1)
        told(1)


def test_before_it_listens_it_is_interrupted_and_the_handler_is_put_back():
    def handler(*_):
        pass

    signal.signal(signal.SIGTERM, handler)
    stopping = Stopping(RunOptions(grace=60))
    with on_sigterm(stopping):
        with left_early(stopping):
            told(1)
            pytest.fail("it went on")
        told(3)  # within the grace: what a stopped run writes is written
    assert stopping.why == TOLD and stopping.early and signal.getsignal(signal.SIGTERM) is handler


def test_what_is_interrupted_before_anything_is_known_ends_with_code_5():
    with pytest.raises(StoppedEarly, match="SIGTERM came before anything was started") as ended:
        with on_sigterm(Stopping(RunOptions())):
            told(1)
    assert ended.value.exit_code == 5


def test_ctrl_c_is_no_sigterm():
    stopping = Stopping(RunOptions())
    with pytest.raises(KeyboardInterrupt), on_sigterm(stopping), left_early(stopping):
        raise KeyboardInterrupt
    assert stopping.why is None


def test_after_the_deadline_what_is_started_is_finished_until_a_sigterm_comes():
    stopping = Stopping(RunOptions(until=time.time() + 100, grace=20))
    stopping.begin(1000.0)
    assert not stopping.over(1050.0, under_way=True)
    assert not stopping.over(1101.0, under_way=True) and stopping.why == LATE
    assert not stopping.over(9000.0, under_way=True)
    assert stopping.over(9000.0, under_way=False)
    stopping.stop(TOLD)
    assert not stopping.over(9001.0, under_way=True)
    assert stopping.over(9022.0, under_way=True)


@pytest.mark.parametrize(
    ("ended", "succeed_with", "code"),
    [
        ({}, [], 0),
        ({"failed": {"a": "flawed"}}, [], 3),
        ({"failed": {"a": "flawed"}}, [5], 3),
        ({"failed": {"a": "flawed"}}, [3], 0),
        ({"rejected": {"row 1": "bad"}}, [3, 5], 0),
        ({"left": 1, "stopped": LATE}, [3], 5),
        ({"left": 1, "stopped": LATE}, [3, 5], 0),
        ({"left": 1, "stopped": TOLD}, [3, 5], 5),
    ],
)
def test_what_a_job_calls_a_success(ended, succeed_with, code):
    summary = Summary("run", "out", (), **({"failed": {}, "rejected": {}} | ended), rendered=0, seconds=1.0)
    assert summary.code(succeed_with) == code
