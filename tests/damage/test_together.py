"""Repairs that die at any write, several at once, and beside renders and `gc`."""

import random
import threading

import pytest

from flowcache.errors import FlowcacheError
from flowcache.storage import layout, ownership
from flowcache.storage.commits import read_commits
from flowcache.storage.gc import collect
from flowcache.storage.repair import repair
from tests.damage.scene import check_cured, hurt, night, outcome, render
from tests.unit.storage.faults import Crash, FaultyStore


def harmed(chance: random.Random):
    """A state, a marker, an init segment and a part of the tables."""
    store = night()
    keys = [
        read_commits(store).markers["long"][1].state_key,
        layout.marker_key("other", 0),
        layout.init_key("short"),
        next(entry.key for entry in store.list(f"{layout.META}/chunks")),
    ]
    for key in chance.sample(keys, chance.choice((1, 2, 4))):
        hurt(store, key, chance.choice(["removed", "cut", "foreign"]), chance)
    return store


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_repair_that_dies_at_any_write_is_finished_by_whoever_comes(after, wanted, monkeypatch):
    monkeypatch.setattr(ownership, "BEAT", 1e4)  # else its beats are counted, too
    for point in range(80):
        store = harmed(random.Random(3))
        try:
            repair(FaultyStore(store, point, after), decode=False)
            over = True
        except Crash:
            over = False
        if point % 2:
            render(store)
        check_cured(store, wanted)
        if over:
            assert point > 10
            return
    raise AssertionError("never came to an end")


def at_once(*calls) -> list[BaseException | None]:
    ends: list[BaseException | None] = [None] * len(calls)

    def run(number):
        try:
            calls[number]()
        except FlowcacheError as error:
            ends[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return ends


@pytest.mark.parametrize("seed", range(5))
def test_two_repairs_at_once(seed, wanted):
    store = harmed(random.Random(seed))
    ends = at_once(lambda: repair(store, decode=False), lambda: repair(store, decode=False))
    assert None in ends, ends
    check_cured(store, wanted)


@pytest.mark.parametrize("seed", range(6))
def test_repairs_renders_and_gc_at_once(seed, wanted):
    """Who is refused or taken over from says so; in the end nothing is lost."""
    store = harmed(random.Random(seed))
    calls = [
        lambda: repair(store, decode=False),
        lambda: render(store),
        lambda: render(store),
        lambda: [collect(store, grace=0.0, now=2.0**32) for _ in range(20)],
    ]
    random.Random(seed).shuffle(calls)
    ends = at_once(*calls)
    assert None in ends, ends
    render(store)
    check_cured(store, wanted)
    assert outcome(store) == wanted
