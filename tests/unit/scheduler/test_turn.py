"""Of jobs that something starts again, one renders into a root at a time, and keeps the deadline of its first start."""

import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from flowcache.errors import AtWork
from flowcache.inputs.options import RunOptions
from flowcache.scheduler import turn as module
from flowcache.scheduler.stopping import LATE, TOLD, Stopping
from flowcache.scheduler.turn import DAY, RETRY, Turn, turn
from flowcache.storage import layout
from flowcache.storage.documents import canonical
from flowcache.storage.keys import named
from flowcache.storage.objects.store import Store

NOON = 1_800_000_000.0


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A sign of life every 50 ms."""
    for name, seconds in (("BEAT", 0.05), ("DEAD", 0.4), ("LOOK", 0.02)):
        monkeypatch.setattr(module, name, seconds)


def at_work(store, job, until=None, why=None):
    """Holds a turn for as long as the context is open."""
    stopping = Stopping(RunOptions(until=until))
    stopping.why = why
    return turn(store, job, stopping, lambda message: None), stopping


def deadline(store, job, until, why=None):
    """The deadline of a run that begins and ends now."""
    context, stopping = at_work(store, job, until, why)
    with context:
        return stopping.until


def left(store, **changes):
    """A turn whose driver was killed."""
    module._write(store, replace(Turn("night", "killed", NOON, 3, time.time()), **changes))


def test_a_run_that_nothing_starts_again_leaves_no_trace(store):
    assert deadline(store, None, NOON) == NOON and store.find(layout.TURN) is None


def test_a_retry_keeps_the_deadline_of_the_first_start(store):
    left(store)
    assert deadline(store, "night", NOON + DAY) == NOON


def test_a_retry_after_sigterm_is_a_retry_and_one_after_the_deadline_too(store):
    assert deadline(store, "night", NOON, TOLD) == NOON
    assert deadline(store, "night", NOON + DAY, TOLD) == NOON


@pytest.mark.parametrize("why", [None, LATE])
def test_a_job_of_the_same_name_after_one_that_ended_is_a_new_one(store, why):
    assert deadline(store, "night", NOON, why) == NOON
    assert deadline(store, "night", NOON + DAY, why) == NOON + DAY


@pytest.mark.parametrize(
    ("before", "asked"),
    [
        ({"at": time.time() - RETRY - 60}, NOON + DAY),  # a day later
        ({"over": True}, NOON + DAY),
        ({"job": "another"}, NOON + DAY),
        ({"until": None}, NOON + DAY),
        ({}, NOON + 3600),  # another time of day
        ({}, None),
    ],
)
def test_what_is_no_retry_of_it_has_a_deadline_of_its_own(store, before, asked):
    left(store, **before)
    assert deadline(store, "night", asked) == asked


def test_a_job_leaves_while_another_is_at_work_and_takes_its_turn_afterwards(store):
    first, _ = at_work(store, "monday")
    with first:
        for _ in range(2):
            with pytest.raises(AtWork, match="job monday is at work on .*: tuesday leaves it") as refused, \
                    at_work(store, "tuesday")[0]:  # fmt: skip
                pytest.fail("both are at work")
            assert refused.value.exit_code == 5
    begin = time.monotonic()
    assert deadline(store, "tuesday", NOON) == NOON
    assert time.monotonic() - begin < 0.3  # what is over is not waited for


def test_a_dead_jobs_turn_is_taken_after_its_signs_of_life_and_a_retrys_at_once(store):
    left(store, job="monday")
    begin = time.monotonic()
    deadline(store, "tuesday", NOON, TOLD)
    assert time.monotonic() - begin >= 0.4
    left(store)
    begin = time.monotonic()
    deadline(store, "night", NOON)
    assert time.monotonic() - begin < 0.3


def test_an_earlier_driver_of_the_job_stops_once_its_retry_is_there(store):
    with ExitStack() as both:
        first, before = at_work(store, "night")
        both.enter_context(first)
        both.enter_context(at_work(store, "night")[0])
        until = time.monotonic() + 10
        while before.why is None and time.monotonic() < until:
            time.sleep(0.01)
        assert before.why == "another driver took over"


def test_two_that_find_the_root_empty_together_end_as_one(store):
    """Nobody waits: both take it, and whoever wrote last keeps it."""
    ready, whys = threading.Barrier(2), {}

    def start(job):
        ready.wait()
        try:
            context, stopping = at_work(store, job)
            with context:
                time.sleep(1)
            whys[job] = stopping.why
        except AtWork as left:
            whys[job] = str(left)

    threads = [threading.Thread(target=start, args=(job,)) for job in ("a", "b")]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(why is None for why in whys.values()) == [False, True], whys


WRONG = ({"until": "noon"}, {"until": []}, {"at": "now"}, {"job": ["night"]}, {"beat": None}, {"over": "no"})
OF_NIGHT = [canonical(vars(Turn("night", "killed", NOON, 3, 1e11)) | wrong) for wrong in WRONG]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"job": 3}', b"\xff", b"[" * 100_000, *OF_NIGHT])
def test_a_turn_that_cannot_be_read_is_none(store, content):
    store.put(layout.TURN, content)
    assert deadline(store, "night", NOON) == NOON


def test_it_is_an_object_of_ours(store):
    left(store)
    assert [found and found.kind for found in map(named, store.list(""))] == ["turn"]
