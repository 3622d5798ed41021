"""One holder at a time: who comes later takes a root over, whoever had it commits nothing more, and repair waits."""

import threading
import time
import uuid

import pytest

from flowcache.errors import InputError, StoreError
from flowcache.storage import layout, ownership
from flowcache.storage.commits import commit_segment, read_commits
from flowcache.storage.documents import canonical, parse, to_json
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store
from flowcache.storage.ownership import Hold, Holder, Owner, Superseded, confirm, read_holder, read_owner, take
from flowcache.storage.repair import repair
from flowcache.storage.runs import begin_run
from tests.unit.storage.faults import Uncommitted
from tests.unit.storage.samples import Studio, plan, request


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(ownership, "BEAT", 0.05)
    monkeypatch.setattr(ownership, "SILENT", 1.5)


@pytest.fixture
def studio():
    made = Studio(Store(f"memory://{uuid.uuid4().hex}"), (request("cat", 2),))
    made.run()
    return made


def held(studio, work="render") -> Hold:
    return take(studio.store, begin_run(studio.store, studio.record()), work)


def killed(studio, work="render") -> Hold:
    """It never says that it ended, and gives no sign of life."""
    return held(studio, work)


def test_the_later_driver_takes_over_at_once_and_it_is_written_down(studio):
    said = []
    with held(studio) as first:
        begun = time.monotonic()
        second = take(studio.store, begin_run(studio.store, studio.record()), "render", said.append)
        assert time.monotonic() - begun < 1.2 and read_owner(studio.store).holder == second.name
        with pytest.raises(Superseded, match=r"the driver on .* \(process \d+, begun .* UTC\) took memory://.* over"):
            first.look()
        with pytest.raises(Superseded):
            first.check()
    assert said == [f"took over from {read_holder(studio.store, first.name)}, which did not say that it ended"]
    assert read_holder(studio.store, second.name).after == first.name
    with second:
        second.look()
    assert read_holder(studio.store, second.name).ended == "done"
    assert {one.attempt for one in listed(studio.store, layout.HOLDERS)} == {first.name, second.name}


def test_the_beats_tell_that_the_root_is_lost(studio):
    with held(studio) as first:
        held(studio)
        until = time.monotonic() + 5
        while first._lost is None and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(Superseded):
            first.check()


def test_a_worker_of_a_driver_that_lost_the_root_commits_nothing():
    studio = Studio(Store(f"memory://{uuid.uuid4().hex}"), (request("cat", 2),))
    first = killed(studio)
    zombie = Studio(Uncommitted(studio.store), studio.requests).render(plan(studio.requests)[0], None)
    second = held(studio)
    with pytest.raises(Superseded):
        commit_segment(studio.store, zombie, first.name)
    assert not read_commits(studio.store).markers
    assert commit_segment(studio.store, zombie, second.name) == zombie


def test_a_worker_of_another_run_commits_nothing_in_a_root_that_was_emptied():
    """The root was cleared and claimed by another manifest, while a worker of the first one lived on."""
    store = Store(f"memory://{uuid.uuid4().hex}")
    old, new = Studio(store, (request("cat", 2),)), Studio(store, (request("cat", 2, seed=99),))
    first = killed(old)
    zombie = Studio(Uncommitted(store), old.requests).render(plan(old.requests)[0], None)
    for entry in store.list():
        store.delete(entry.key)
    with held(new):
        with pytest.raises(Superseded):
            commit_segment(store, zombie, first.name)
        store.put(layout.marker_key("cat", 0), to_json(zombie))  # one that is there all the same is no winner
        with pytest.raises(StoreError, match="was committed by another run"):
            new.render(plan(new.requests)[0], None)


@pytest.mark.parametrize("harm", [b"", b"{}", b"[1]", b"note", canonical({"run_id": 3}), None, "unknown"])
def test_an_owner_that_is_damaged_or_gone_is_written_anew_by_who_lives(studio, harm):
    with held(studio) as hold:
        if harm is None:
            studio.store.delete(layout.OWNER)
        else:
            unknown = canonical(Owner(hold.owner.run_id, "0" * 16))
            studio.store.put(layout.OWNER, unknown if harm == "unknown" else harm)
        confirm(studio.store, hold.name)  # waits for it
        assert read_owner(studio.store) == hold.owner


def test_an_owner_that_nobody_writes_anew_is_the_stores_fault(studio):
    hold = killed(studio)
    studio.store.delete(layout.OWNER)
    with pytest.raises(StoreError, match="_OWNER is missing or damaged") as told:
        confirm(studio.store, hold.name)
    assert told.value.passing


def test_repair_refuses_while_a_driver_lives(studio):
    with (
        held(studio),
        pytest.raises(InputError, match=r"the driver on .* is at work there. Wait for its end, or stop it"),
    ):
        repair(studio.store)
    begun = time.monotonic()
    assert repair(studio.store).problems == () and time.monotonic() - begun < 1.2  # it said that it ended


@pytest.mark.parametrize("harm", ["", "owner", "holder"])
def test_repair_takes_over_from_a_driver_that_gives_no_sign_of_life(studio, harm):
    driver, said = killed(studio), []
    if harm:
        studio.store.delete(layout.OWNER if harm == "owner" else layout.holder_key(driver.name))
    assert repair(studio.store, note=said.append).problems == ()
    assert said[0].startswith("looking for 2 s whether")
    with pytest.raises(Superseded):
        driver.look()


@pytest.mark.parametrize("harm", ["owner", "holder"])
def test_repair_sees_a_living_driver_whatever_is_lost(studio, harm):
    with held(studio) as driver:
        studio.store.delete(layout.OWNER if harm == "owner" else layout.holder_key(driver.name))
        with pytest.raises(InputError, match="is at work there"):
            repair(studio.store)


def test_a_driver_waits_for_a_repair_that_lives_and_not_for_a_dead_one(studio):
    said, taken = [], []
    run = begin_run(studio.store, studio.record())

    def drive():
        taken.append(take(studio.store, run, "render", said.append))

    with held(studio, "repair") as mending:
        driver = threading.Thread(target=drive)
        driver.start()
        driver.join(1.0)
        assert driver.is_alive() and not taken
        mending.check()
        with pytest.raises(InputError, match="the repair on"):
            repair(studio.store)
    driver.join(10)
    assert taken and any(line.startswith("waiting for the repair on") for line in said)
    killed(studio, "repair")
    assert take(studio.store, run, "render").holder.after


def test_a_holder_is_canonical_and_comes_back(studio):
    holder = read_holder(studio.store, held(studio).name)
    assert parse(Holder, to_json(holder), "here") == holder
