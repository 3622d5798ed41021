"""Stores that take everything and show less: nothing is called done that does not show when it is read back."""

import time

import pytest

from benchmarks.scale import CountingBackend, Memory
from flowcache.errors import InputError, StoreError
from flowcache.scheduler.protocols import GangFailure
from flowcache.storage import layout
from flowcache.storage.objects.backend import Entry
from flowcache.storage.objects.store import LOOK_PAUSES
from flowcache.storage.status import status
from tests.unit.scheduler.studio import ONE_SEGMENT, Studio, request, sound


class Lying(CountingBackend):
    """Shows only what `shows`, and each object `lag` seconds after it was written, on a clock that sleeping moves."""

    def __init__(self, monkeypatch, lag: float = 0.0, shows=lambda key: True):
        super().__init__(0.0)
        self.lag, self.shows, self.clock = lag, shows, 0.0
        self.written: dict[str, float] = {}
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        self.written.setdefault(key, self.clock)

    def create(self, key: str, data: bytes) -> None:
        super().create(key, data)
        self.written[key] = self.clock

    def list(self, prefix: str):
        late = self.clock - self.lag
        return (e for e in super().list(prefix) if self.shows(e.key) and self.written[e.key] <= late)


class Forgetful(CountingBackend):
    """Keeps the first of what is put under these names, and takes all that comes later without a word."""

    def __init__(self, ending: str):
        super().__init__(0.0)
        self.ending, self.honest = ending, False

    def put(self, key: str, data: bytes) -> None:
        if self.honest or key not in self.objects or not key.endswith(self.ending):
            super().put(key, data)


class OneObject(CountingBackend):
    """Every name is that of one object, as with a versionId in the URL."""

    def put(self, key, data):
        self.key = key
        super().put("", data)

    def create(self, key, data):
        super().create("", data)

    def get(self, key):
        return super().get("")

    def size(self, key):
        return super().size("")

    def delete(self, key):
        super().delete("")

    def list(self, prefix):
        return (Entry(self.key, len(data)) for data in self.objects.values())


def studio(backend, *names: str) -> Studio:
    return Studio(*(request(name) for name in names or "a"), store=Memory(backend))


def test_a_list_that_shows_nothing_is_refused_before_work(monkeypatch):
    backend = Lying(monkeypatch, shows=lambda key: False)
    made = studio(backend)
    with pytest.raises(InputError, match="^output: memory://scale does not list what was written to it"):
        made.run()
    assert not made.providers and not backend.objects and backend.clock == sum(LOOK_PAUSES)


def test_one_object_under_every_name_is_refused_before_work():
    backend = OneObject(0.0)
    made = studio(backend)
    with pytest.raises(InputError, match="^output: memory://scale holds one object under every name"):
        made.run()
    assert not made.providers and not backend.objects


def test_listings_that_lag_are_waited_for(monkeypatch):
    made = studio(Lying(monkeypatch, lag=6.0), "a", "b")
    summary = made.run(size=2)
    assert (summary.exit_code, summary.done, summary.rendered) == (0, ("a", "b"), 18)
    assert sound(made.store)["rows"] == 20 and made.store.exists(layout.SUCCESS)


def test_after_a_while_the_run_ends_with_what_does_not_show(monkeypatch):
    backend = Lying(monkeypatch)
    made = studio(backend, "a", "b")
    made.store.probe()
    backend.lag = 60.0
    monkeypatch.setattr(Memory, "probe", lambda store: None)
    lack = "0 of 2 segments, not marked done, no playlist"
    with pytest.raises(
        StoreError, match=f"listed: video a: {lack}; video b: {lack}; meta/videos/.*: not there"
    ) as told:
        made.run()
    assert told.value.exit_code == 1 and not made.store.exists(layout.SUCCESS)
    backend.lag = 0.0
    assert made.run().exit_code == 0 and made.store.exists(layout.SUCCESS)


HIDDEN = {
    "_commits/a/00001.json": "video a: 1 of 2 segments. ",
    "_commits/a/DONE.json": "video a: not marked done. ",
    "media/a/index.m3u8": "video a: no playlist. ",
    "part-00000.parquet": "meta/videos/run=.*: not there; meta/chunks/run=.*: not there. ",
}


@pytest.mark.parametrize("hidden", HIDDEN)
def test_each_thing_that_a_done_run_has_must_show(monkeypatch, hidden):
    """Of a first run, and of one that finds all done: its _SUCCESS goes."""
    backend = Lying(monkeypatch, shows=lambda key: not key.endswith(hidden))
    made = studio(backend, "a", "b")
    for again in (False, True):
        with pytest.raises(StoreError, match=HIDDEN[hidden]) as told:
            made.run()
        assert "video b" not in str(told.value) and not made.store.exists(layout.SUCCESS)
        stopped = status(made.store).stopped
        assert (stopped.exit_code, stopped.why) == (1, str(told.value))
        if not again:
            honest, backend.shows = backend.shows, lambda key: True
            assert made.run().exit_code == 0 and made.store.exists(layout.SUCCESS)
            backend.shows = honest


def test_a_master_playlist_that_was_written_must_show(monkeypatch):
    """By the driver that wrote it: another one can't tell it from what an older version left."""
    backend = Lying(monkeypatch, shows=lambda key: key != layout.master_key("a"))
    made = studio(backend, "a", "b")
    with pytest.raises(StoreError, match="video a: no master playlist, or an older one. "):
        made.run()
    assert not made.store.exists(layout.SUCCESS)
    backend.shows = lambda key: True
    assert made.run().exit_code == 0 and made.store.exists(layout.master_key("a"))


@pytest.mark.parametrize("ending, why", [("index.m3u8", "video b: an older playlist"), ("parquet", "an older one")])
def test_what_was_replaced_and_is_still_the_old_one_is_a_difference(monkeypatch, ending, why):
    """Of the first run b is given up after one of its segments; the second one finishes it."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def fault(task):
        if (task.request.id, task.segment.index) == ("b", 1):
            raise GangFailure(0, "work", "it broke", usable=True)

    backend = Forgetful(ending)
    made = studio(backend, "a", "b")
    backend.honest = True
    assert made.run(retries=0, fault=fault).exit_code == 3
    backend.honest = False
    with pytest.raises(StoreError, match=f"{why}.*Nothing is marked finished"):
        made.run(retry_failed=True)
    assert not made.store.exists(layout.SUCCESS)
    backend.honest = True
    assert made.run().exit_code == 0
    assert sound(made.store)["rows"] == 20


def test_a_playlist_that_arrives_late_is_written_anew(monkeypatch):
    """The first one of a request that was given up and tried again: it replaces the closed one."""
    backend = CountingBackend(0.0)
    made, put, held = studio(backend), backend.put, []

    def late(key: str, data: bytes) -> None:
        if key.endswith("index.m3u8") and b"ENDLIST" not in data:
            held.append((key, data))
        put(key, data)
        if key.endswith(".parquet") and held:
            put(*held.pop())

    monkeypatch.setattr(backend, "put", late)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert made.run().exit_code == 0
    assert b"ENDLIST" in made.store.get(layout.playlist_key("a")) and sound(made.store)


def test_success_that_is_not_kept_is_no_success(monkeypatch):
    backend = CountingBackend(0.0)
    made, put = studio(backend), backend.put
    monkeypatch.setattr(backend, "put", lambda key, data: key == layout.SUCCESS or put(key, data))
    with pytest.raises(StoreError, match="_SUCCESS was written and is not there"):
        made.run()
    monkeypatch.setattr(backend, "put", put)
    assert made.run().exit_code == 0 and made.store.exists(layout.SUCCESS)


def test_a_dead_letter_that_does_not_show_is_a_difference_too(monkeypatch):
    backend = Lying(monkeypatch, shows=lambda key: not key.startswith(layout.DEAD_LETTERS))
    made = studio(backend, "a", "b")

    def fault(task):
        if task.request.id == "a":
            raise GangFailure(0, "work", "it broke", usable=True)

    with pytest.raises(StoreError, match="video a: 0 of 2 segments, not marked done, no playlist. Nothing"):
        made.run(retries=0, fault=fault)
    backend.shows = lambda key: True
    assert made.run().exit_code == 3


def test_what_is_left_at_the_deadline_need_not_show(monkeypatch):
    made = Studio(request("a", ONE_SEGMENT), request("b"), store=Memory(Lying(monkeypatch, lag=6.0)))
    summary = made.run(seconds=lambda task: 10.0, until=time.time() + 15)
    assert (summary.exit_code, summary.done, summary.left) == (5, ("b",), 1)


def test_a_proof_takes_a_few_listings_whatever_the_size_of_the_run():
    backend = CountingBackend(0.0)
    made = studio(backend, *(f"v{i}" for i in range(30)))
    assert made.run(size=4).exit_code == 0
    lists = {name: count for name, count in backend.requests.items() if " list " in name}
    assert lists["loop list media"] == 1 and sum(lists.values()) < 20
    assert not [name for name in backend.requests if name.startswith("driver get") or name == "loop get marker"]
