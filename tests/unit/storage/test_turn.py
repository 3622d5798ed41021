"""Of jobs that something starts again, one renders into a root at a time, and keeps the deadline of its first start."""

import threading
import time
import uuid
from dataclasses import replace

import pytest

from flowcache.errors import AtWork
from flowcache.scheduler.stopping import LATE, TOLD
from flowcache.storage import layout, ownership
from flowcache.storage.documents import to_json
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import Superseded, read_holder, read_owner, take
from flowcache.storage.runs import begin_run
from flowcache.storage.turn import DAY, RETRY, Job
from tests.unit.storage.samples import Studio, request

NOON = 1_800_000_000.0


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A sign of life every 50 ms."""
    monkeypatch.setattr(ownership, "BEAT", 0.05)
    monkeypatch.setattr(ownership, "SILENT", 1.5)


@pytest.fixture
def root():
    return Studio(Store(f"memory://{uuid.uuid4().hex}"), (request("cat", 1),))


def at_work(root, job, until=None, why=None):
    """Holds the root for as long as the context is open."""
    run = begin_run(root.store, root.record())
    hold = take(root.store, run, "render", job=Job(job, until) if job else None)
    hold.how = why or "done"
    return hold


def deadline(root, job, until, why=None):
    """The deadline of a run that begins and ends now."""
    with at_work(root, job, until, why) as hold:
        return hold.holder.until


def left(root, **changes):
    """A driver of the job was killed."""
    holder = at_work(root, "night", NOON).holder
    root.store.put(layout.holder_key(holder.name), to_json(replace(holder, **changes)))


def test_a_run_that_nothing_starts_again_leaves_no_trace(root):
    assert deadline(root, None, NOON) is None
    assert read_holder(root.store, read_owner(root.store).holder).job is None


def test_a_retry_keeps_the_deadline_of_the_first_start(root):
    left(root)
    assert deadline(root, "night", NOON + DAY) == NOON


def test_a_retry_after_sigterm_is_a_retry_and_one_after_the_deadline_too(root):
    assert deadline(root, "night", NOON, TOLD) == NOON
    assert deadline(root, "night", NOON + DAY, TOLD) == NOON


@pytest.mark.parametrize("why", [None, LATE])
def test_a_job_of_the_same_name_after_one_that_ended_is_a_new_one(root, why):
    assert deadline(root, "night", NOON, why) == NOON
    assert deadline(root, "night", NOON + DAY, why) == NOON + DAY


@pytest.mark.parametrize(
    ("before", "asked"),
    [
        ({"seen": time.time() - RETRY - 60}, NOON + DAY),  # a day later
        ({"ended": "done"}, NOON + DAY),
        ({"job": "another"}, NOON + DAY),
        ({"until": None}, NOON + DAY),
        ({}, NOON + 3600),  # another time of day
        ({}, None),
    ],
)
def test_what_is_no_retry_of_it_has_a_deadline_of_its_own(root, before, asked):
    left(root, **before)
    assert deadline(root, "night", asked) == asked


def test_a_job_leaves_while_another_is_at_work_and_takes_its_turn_afterwards(root):
    with at_work(root, "monday"):
        for _ in range(2):
            with pytest.raises(AtWork, match="job monday is at work on .*: tuesday leaves it") as refused:
                at_work(root, "tuesday")
            assert refused.value.exit_code == 5
    begin = time.monotonic()
    assert deadline(root, "tuesday", NOON) == NOON
    assert time.monotonic() - begin < 1.2  # what is over is not waited for


def test_a_dead_jobs_turn_is_taken_after_its_signs_of_life_and_a_retrys_at_once(root):
    left(root, job="monday")
    begin = time.monotonic()
    deadline(root, "tuesday", NOON, TOLD)
    assert time.monotonic() - begin >= 1.5
    left(root)
    begin = time.monotonic()
    deadline(root, "night", NOON)
    assert time.monotonic() - begin < 1.2


def test_an_earlier_driver_of_the_job_stops_once_its_retry_is_there(root):
    with at_work(root, "night") as first, at_work(root, "night"):
        until = time.monotonic() + 10
        while first._lost is None and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(Superseded):
            first.check()


def test_two_that_find_the_root_empty_together_end_as_one(root):
    """Nobody waits: both take it, and whoever wrote last keeps it."""
    ready, whys = threading.Barrier(2), {}

    def start(job):
        ready.wait()
        try:
            with at_work(root, job) as hold:
                time.sleep(1)
                hold.check()
            whys[job] = None
        except AtWork as left:
            whys[job] = str(left)

    threads = [threading.Thread(target=start, args=(job,)) for job in ("a", "b")]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(why is None for why in whys.values()) == [False, True], whys


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"job": 3}', b"\xff"])
def test_a_turn_that_cannot_be_read_is_none(root, content):
    left(root)
    root.store.put(layout.holder_key(read_owner(root.store).holder), content)
    assert deadline(root, "night", NOON + DAY) == NOON + DAY


def test_what_a_person_does_between_two_tries_is_looked_behind(root):
    left(root)
    for _ in range(3):
        assert deadline(root, None, None) is None
    assert deadline(root, "night", NOON + DAY) == NOON


def test_drivers_that_follow_each_other_in_a_circle_are_no_job(root):
    with at_work(root, None) as hold:
        holder = hold.holder
    root.store.put(layout.holder_key(holder.name), to_json(replace(holder, after=holder.name)))
    assert deadline(root, "night", NOON) == NOON
