"""Three drivers with two manifests in one root, interleaved at every operation: one run's work is there in the end,
whole, and whoever does not do it is told so."""

import random
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale import CountingBackend, Memory
from flowcache.errors import FlowcacheError, InputError
from flowcache.scheduler import store_writer
from flowcache.storage import layout, ownership
from flowcache.storage.commits import read_commits
from flowcache.storage.keys import listed
from flowcache.storage.objects import store as objects
from flowcache.storage.ownership import Superseded
from flowcache.storage.verify import verify
from tests.fault.inline import Inline
from tests.unit.scheduler.studio import ONE_SEGMENT, TWO_SEGMENTS, Studio, request

MANIFESTS = {
    "red": (request("long", TWO_SEGMENTS), request("short", ONE_SEGMENT)),
    "blue": (replace(request("long", TWO_SEGMENTS), seed=2), request("short", ONE_SEGMENT)),
}
DRIVERS = ("red", "red", "blue")


class Turns:
    """Of those that are still there, who does the next operation."""

    def __init__(self, order):
        self.order, self.there = iter(order), set(range(len(DRIVERS)))
        self.changed = threading.Condition()
        self.turn = self._next()

    def _next(self):
        return sorted(self.there)[next(self.order) % len(self.there)] if self.there else None

    def do(self, who: int, operation):
        with self.changed:
            assert self.changed.wait_for(lambda: self.turn == who, timeout=60)
            try:
                return operation()
            finally:
                self.turn = self._next()
                self.changed.notify_all()

    def leave(self, who: int):
        with self.changed:
            self.there.discard(who)
            if self.turn == who:
                self.turn = self._next()
            self.changed.notify_all()


class InTurn(CountingBackend):
    def __init__(self, held: dict, turns: Turns, who: int):
        super().__init__(0.0)
        self.objects, self.turns, self.who = held, turns, who

    def _ask(self, verb, key):
        return

    def put(self, key, data):
        self.turns.do(self.who, lambda: CountingBackend.put(self, key, data))

    def create(self, key, data):
        self.turns.do(self.who, lambda: CountingBackend.create(self, key, data))

    def get(self, key):
        return self.turns.do(self.who, lambda: CountingBackend.get(self, key))

    def size(self, key):
        return self.turns.do(self.who, lambda: CountingBackend.size(self, key))

    def list(self, prefix):
        return self.turns.do(self.who, lambda: CountingBackend.list(self, prefix))

    def delete(self, key):
        self.turns.do(self.who, lambda: CountingBackend.delete(self, key))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(objects, "LOOK_PAUSES", (0.0,) * 4)
    monkeypatch.setattr(store_writer, "ThreadPoolExecutor", Inline)
    monkeypatch.setattr(ownership, "BEAT", 1e4)
    monkeypatch.setattr(ownership.Hold, "check", look_once)  # in place of the beats, which come with time
    monkeypatch.setattr(ownership.Hold, "look", look_once)


def look_once(hold):
    """Without `check`, which looks here."""
    other = ownership.held_by_another(hold.store, hold.name)
    if other:
        hold._lost = other
    if hold._lost:
        raise Superseded(hold._lost)


def together(turns: Turns) -> tuple[dict[str, bytes], list[object]]:
    """What is in the store in the end, and how each driver ended."""
    held, ends = {}, [None] * len(DRIVERS)

    def drive(who: int):
        try:
            store = Memory(InTurn(held, turns, who))
            ends[who] = Studio(*MANIFESTS[DRIVERS[who]], store=store).run(size=2)
        except FlowcacheError as error:
            ends[who] = error
        finally:
            turns.leave(who)

    threads = [threading.Thread(target=drive, args=(who,), daemon=True) for who in range(len(DRIVERS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return held, ends


def reading(held: dict[str, bytes]) -> Memory:
    backend = CountingBackend(0.0)
    backend.objects = held
    return Memory(backend)


def outcome(store) -> dict:
    commits = read_commits(store)
    media = {name: [store.get(c.key) for m in found for c in m.chunks] for name, found in commits.markers.items()}
    return {"media": media, "done": commits.done, "beyond": commits.beyond, "dead": commits.dead_letters}


@pytest.fixture(scope="module")
def wanted():
    found = {}
    for name, requests in MANIFESTS.items():
        studio = Studio(*requests)
        assert studio.run().exit_code == 0
        found[name] = outcome(studio.store)
    return found


def check(held, ends, wanted) -> None:
    store = reading(held)
    runs = {marker.run_id for found in read_commits(store).markers.values() for marker in found}
    assert len(runs) == 1, (runs, ends)
    assert [run.entry.key for run in listed(store, layout.RUNS)] == [layout.run_key(*runs)]
    finished = [who for who, end in enumerate(ends) if not isinstance(end, BaseException)]
    assert finished and len({DRIVERS[who] for who in finished}) == 1, ends
    name = DRIVERS[finished[0]]
    for who, end in enumerate(ends):
        if DRIVERS[who] != name:
            assert isinstance(end, InputError), end
        elif who not in finished:
            assert isinstance(end, Superseded), end
        else:
            assert end.exit_code == 0
    assert outcome(store) == wanted[name]
    report = verify(store, decode=False)
    assert report.sound, report.problems


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32))
def test_any_order_of_operations(wanted, seed):
    chance = random.Random(seed)
    check(*together(Turns(iter(lambda: chance.randrange(6), None))), wanted)


class Paused(Turns):
    """Driver `first` does `at` operations, then the others run to their ends one after the other, then it goes on."""

    def __init__(self, first: int, at: int):
        self.ranks = [who for who in range(len(DRIVERS)) if who != first] + [first]
        super().__init__([first] * at)

    def _next(self):
        who = next(self.order, self.ranks[0])
        return next((one for one in (who, *self.ranks) if one in self.there), None)


@pytest.mark.parametrize("first", [0, 2])
def test_one_is_paused_while_the_others_do_everything(wanted, first):
    for at in range(first, 75, 9):
        check(*together(Paused(first, at)), wanted)


@pytest.mark.slow
def test_one_is_paused_at_each_operation_while_the_others_do_everything(wanted):
    for at in range(75):
        check(*together(Paused(0, at)), wanted)
