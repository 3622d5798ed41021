"""Garbage collection: what is removed, and that nothing is that anybody may still need."""

import time
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.errors import StoreError
from flowcache.storage import layout
from flowcache.storage.commits import commit_segment, read_commits
from flowcache.storage.gc import collect
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run
from flowcache.storage.verify import verify
from tests.unit.storage.faults import Uncommitted
from tests.unit.storage.samples import Studio, plan, request

REQUESTS = (request("cat", 2), request("dog", 1))
SEGMENTS = plan(REQUESTS)
LATER = 1000.0


def fresh() -> Store:
    store = Store(f"memory://{uuid.uuid4().hex}")
    begin_run(store, Studio(store, REQUESTS).record())
    return store


def test_what_lost_attempts_left_goes_after_the_grace_period():
    store = fresh()
    lost = Studio(Uncommitted(store), REQUESTS)
    losers = [lost.render(SEGMENTS[0], None), lost.render(SEGMENTS[0], None)]
    Studio(store, REQUESTS).run()
    before = {entry.key for entry in store.list()}
    assert verify(store).counts["orphans"] == 6
    assert collect(store, grace=LATER).objects == 0
    found = collect(store, grace=LATER, dry_run=True, now=time.time() + LATER + 5)
    assert (found.objects, found.kept) == (6, 0) and {entry.key for entry in store.list()} == before
    found = collect(store, grace=LATER, now=time.time() + LATER + 5)
    assert found.objects == 6 and found.bytes > 0
    gone = before - {entry.key for entry in store.list()}
    assert gone == {key for m in losers for key in (m.state_key, *(chunk.key for chunk in m.chunks))}
    report = verify(store)
    assert report.sound and report.counts["orphans"] == 0


def test_an_attempt_that_may_still_win_is_left_alone_however_old():
    store = fresh()
    waiting = Studio(Uncommitted(store), REQUESTS).render(SEGMENTS[0], None)
    found = collect(store, grace=0.0, now=time.time() + 10**6)
    assert (found.objects, found.kept) == (0, 3)
    assert commit_segment(store, waiting) == waiting and verify(store).sound


def test_expired_links_go():
    store = fresh()
    store.put(layout.link_key("cat", 100), b"old")
    store.put(layout.link_key("cat", 200), b"new")
    assert collect(store, now=150.0).objects == 1
    assert [entry.key for entry in store.list(layout.LINKS)] == [layout.link_key("cat", 200)]


def test_a_folder_without_a_run_is_not_touched():
    store = Store(f"memory://{uuid.uuid4().hex}")
    store.put("media/cat/00000.0000000100000000.m4s", b"somebody else's")
    with pytest.raises(StoreError, match="holds no run"):
        collect(store, grace=0.0)
    assert store.list()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["render", "commit", "collect"]), st.integers(0, 5)), max_size=25))
def test_collecting_at_any_moment_takes_nothing_that_is_or_will_be_named(steps):
    """Attempts at the first segment of each video begin and commit in any order, the collector knows no grace."""
    store, attempts = fresh(), []
    begun = Studio(Uncommitted(store), REQUESTS)
    for action, number in steps:
        if action == "render":
            attempts.append(begun.render(SEGMENTS[0 if number % 2 else 2], None))
        elif action == "commit" and attempts:
            commit_segment(store, attempts.pop(number % len(attempts)))
        else:
            collect(store, grace=0.0, now=time.time() + 10**6)
    for marker in attempts:
        commit_segment(store, marker)
    collect(store, grace=0.0, now=time.time() + 10**6)
    report = verify(store, decode=False)
    assert report.sound, report.problems
    assert report.counts["orphans"] == 0
    Studio(store, REQUESTS).run()
    assert verify(store).sound and len(read_commits(store).done) == 2
