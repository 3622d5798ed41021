"""What a driver finds damaged of a video it takes back and renders again by itself, and not for ever."""

import json
import random

import pytest

from benchmarks.scale import CountingBackend, Memory
from flowcache.scheduler.ledger import Refused
from flowcache.storage import layout
from flowcache.storage.commits import list_commits, read_commits
from flowcache.storage.gc import collect
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store
from flowcache.storage.verify import verify
from flowcache.worker.task import Task
from tests.damage.scene import LONG, REQUESTS, hurt, night, outcome, poisoned, render
from tests.unit.scheduler.studio import Studio, request


class Refusing(CountingBackend):
    """Gives everything but what `refused` says, as a store with a policy on some keys does."""

    def __init__(self, held: dict[str, bytes], refused):
        super().__init__(0.0)
        self.objects, self.refused = held, refused

    def of_machine(self, fault):
        return isinstance(fault, PermissionError)

    def get(self, key):
        if self.refused(key):
            raise PermissionError("403 AccessDenied")
        return super().get(key)


def finish(store: Store) -> Studio:
    studio = Studio(*REQUESTS, store=store)
    summary = studio.run(retries=0, infra_retries=0, fault=poisoned)
    assert (summary.exit_code, set(summary.failed)) == (3, {"bad"})
    report = verify(store, decode=False)
    assert report.sound, report.problems
    return studio


def states(store: Store, video: str) -> list[str]:
    return [one.entry.key for one in listed(store, f"{layout.STATES}/{video}")]


@pytest.mark.parametrize("how", ["removed", "cut", "flipped", "foreign"])
def test_a_damaged_state_is_made_anew_with_the_segment_that_left_it(how, wanted):
    store = night(upto=2)
    hurt(store, read_commits(store).markers["long"][1].state_key, how, random.Random(how))
    studio = finish(store)
    assert sorted(studio.notes.order) == [("long", 1), ("long", 2), ("other", 2)]
    assert outcome(store) == wanted and len(listed(store, layout.WITHDRAWN)) == 1


def test_all_states_lost_take_the_chain_back_to_its_start(wanted):
    store = night(upto=2)
    for key in states(store, "long") + states(store, "other"):
        store.delete(key)
    studio = finish(store)
    assert sorted(studio.notes.order) == [(video, n) for video in ("long", "other") for n in range(3)]
    assert outcome(store) == wanted


def test_a_state_that_the_store_refuses_alone_is_made_anew(wanted):
    held = night(upto=2).backend.objects
    key = read_commits(Memory(Refusing(held, lambda key: False))).markers["long"][1].state_key
    studio = Studio(*REQUESTS, store=Memory(Refusing(held, lambda asked: asked == key)))
    summary = studio.run(retries=0, infra_retries=0, fault=poisoned)
    assert set(summary.failed) == {"bad"} and outcome(studio.store) == wanted


def test_a_store_that_refuses_every_state_is_at_fault_itself(wanted):
    store = Memory(Refusing(night(upto=0).backend.objects, lambda key: key.startswith(layout.STATES)))
    studio = Studio(*REQUESTS, store=store)
    with pytest.raises(Refused, match="the store refuses all that is left .* alone can't be read"):
        studio.run(retries=0, infra_retries=1, fault=poisoned)
    assert read_commits(store).dead_letters.keys() <= {"bad"}
    whole = Memory(CountingBackend(0.0))
    whole.backend.objects = store.backend.objects
    finish(whole)
    assert outcome(whole) == wanted


def test_a_store_that_damages_every_state_does_not_loop(wanted):
    class Spoiling(CountingBackend):
        def put(self, key, data):
            super().put(key, data[:-1] + b"?" if key.startswith(layout.STATES) else data)

    store = Memory(Spoiling(0.0))
    studio = Studio(*REQUESTS, store=store)
    summary = studio.run(retries=0, fault=poisoned)
    assert set(summary.failed) == {"bad", "long", "other"} and summary.done == ("short",)
    assert "is missing or damaged" in summary.failed["long"] and len(studio.notes.causes) < 15
    whole = Memory(CountingBackend(0.0))
    whole.backend.objects = store.backend.objects
    finish(whole)  # without being asked to try failed ones again
    assert outcome(whole) == wanted


@pytest.mark.parametrize("data", [b"of a lost attempt with another encoder", b"", b"ini"])
def test_an_init_segment_before_the_first_commit_is_nobodys(data, wanted):
    store = Memory(CountingBackend(0.0))
    for video in ("long", "short"):
        store.put(layout.init_key(video), data)
    finish(store)
    assert outcome(store) == wanted


def test_an_init_segment_that_another_segment_under_way_may_need_stays():
    """Of two shots that render side by side, with gangs of two encoders: the other one's commit is not broken."""
    cuts = request("cuts")
    store = Memory(CountingBackend(0.0))
    store.put(layout.init_key("cuts"), b"of an old attempt")
    studio = Studio(cuts, store=store)
    assert studio.run().exit_code == 0 and verify(store, decode=False).sound
    assert store.get(layout.init_key("cuts")) == b"init"


@pytest.mark.parametrize("how", ["cut", "foreign", "another run's", "another video's", "exchanged"])
def test_a_damaged_marker_is_withdrawn_by_the_run_that_meets_it(how, wanted):
    store, key = night(upto=2), layout.marker_key("long", 1)
    if how == "another run's":
        other = Studio(request("long", LONG, priority=5))
        other.run()
        store.put(key, other.store.get(key))
    elif how == "another video's":
        store.put(key, store.get(layout.marker_key("other", 1)))
    elif how == "exchanged":
        first = layout.marker_key("long", 0)
        a, b = store.get(first), store.get(key)
        store.put(first, b)
        store.put(key, a)
    else:
        hurt(store, key, how, random.Random(1))
    finish(store)
    assert outcome(store) == wanted


def test_a_marker_of_a_newer_version_is_not_ours_to_take_back():
    store, key = night(upto=2), layout.marker_key("long", 1)
    store.put(key, store.get(key).replace(b'"schema_version":1', b'"schema_version":2'))
    newer = store.get(key)
    summary = render(store)
    assert "schema version 2" in summary.failed["long"] and store.get(key) == newer
    assert not listed(store, layout.WITHDRAWN)


def test_a_newer_version_that_commits_meanwhile_is_not_taken_back():
    store, key = night(upto=1), layout.marker_key("long", 1)
    newer = store.get(layout.marker_key("long", 0)).replace(b'"schema_version":1', b'"schema_version":2')

    def meddle(task: Task):
        poisoned(task)
        if (task.request.id, task.segment.index) == ("long", 1):
            store.create(key, newer)

    summary = Studio(*REQUESTS, store=store).run(retries=0, fault=meddle)
    assert set(summary.failed) == {"bad", "long"} and "schema version 2" in summary.failed["long"]
    assert store.get(key) == newer and not listed(store, layout.WITHDRAWN)


def test_a_marker_that_the_store_refuses_alone_stays_and_is_one_videos_trouble(wanted):
    held, key = night(upto=2).backend.objects, layout.marker_key("long", 1)
    before = held[key]
    store = Memory(Refusing(held, lambda asked: asked == key))
    summary = render(store)
    assert set(summary.failed) == {"bad", "long"} and "alone can't be read" in summary.failed["long"]
    assert held[key] == before
    open_again = Memory(Refusing(held, lambda asked: False))
    finish(open_again)
    assert outcome(open_again) == wanted


def test_an_attempt_whose_objects_gc_took_does_not_stay_committed(wanted):
    """A zombie: it lost its segment, gc took its objects, what had won was withdrawn, and now it commits."""
    store = Memory(CountingBackend(0.0))
    lost, done = {}, []

    def meddle(task: Task):
        poisoned(task)
        if (task.request.id, task.segment.index) == ("long", 1) and not lost:
            lost[layout.marker_key("long", 0)] = store.get(layout.marker_key("long", 0))
            store.delete(task.parent.state_key)  # the first attempt at segment 0 is to be withdrawn
        elif (task.request.id, task.segment.index) == ("long", 0) and lost and not done:
            done.append(task)
            (key,) = lost
            store.delete(json.loads(lost[key])["chunks"][0]["key"])
            store.create(key, lost[key])

    studio = Studio(*REQUESTS, store=store)
    summary = studio.run(retries=0, fault=meddle)
    assert done and set(summary.failed) == {"bad"} and outcome(store) == wanted
    assert verify(store, decode=False).sound and len(listed(store, layout.WITHDRAWN)) == 2


def test_gc_beside_repairs_and_renders_takes_nothing_that_lives(wanted):
    store = night(upto=1)
    for _ in range(3):
        for key in states(store, "long"):
            store.delete(key)
        collect(store, grace=0.0, now=2.0**32)
        finish(store)
        assert outcome(store) == wanted
        store.delete(layout.done_key("long"))
        store.delete(layout.marker_key("long", 2))
    assert list_commits(store).done == {"other", "short"}
