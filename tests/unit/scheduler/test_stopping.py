"""Why a run starts nothing more, and how long what is under way may take."""

import os
import signal
import time

import pytest

from flowcache.inputs.options import RunOptions
from flowcache.scheduler.stopping import LATE, TOLD, Stopping, on_sigterm
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


def test_nothing_is_heard_before_it_listens_and_the_handler_is_put_back():
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append("before"))
    before, stopping = signal.getsignal(signal.SIGTERM), Stopping(RunOptions())
    with on_sigterm(stopping) as listen:
        told(1)
        assert seen == ["before"] and stopping.why is None
        listen()
        told(1)
    assert seen == ["before"] and stopping.why == TOLD and signal.getsignal(signal.SIGTERM) is before


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
