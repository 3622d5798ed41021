"""A store that gives something else than it holds for a moment: nothing is taken back for that."""

import pytest

from benchmarks.scale import CountingBackend, Memory
from flowcache.storage import layout
from flowcache.storage.objects import store as objects
from flowcache.storage.repair import repair
from flowcache.storage.verify import verify
from tests.damage.scene import night, outcome, render

KEYS = [
    layout.marker_key("long", 0),
    layout.marker_key("long", 2),
    layout.done_key("long"),
    layout.playlist_key("long"),
    layout.init_key("long"),
    "meta/chunks",
]
HOW = {
    "half": lambda held, key: held[key][: len(held[key]) // 2],
    "another": lambda held, key: held[layout.marker_key("short", 0)],
    "none": lambda held, key: None,
}


class Glitch(CountingBackend):
    """Gives `times` times something else at `key`."""

    times, key, how = 0, "", "half"

    def get(self, key: str) -> bytes:
        if self.times == 0 or not key.startswith(self.key):
            return super().get(key)
        self.times -= 1
        data = HOW[self.how](self.objects, key)
        if data is None:
            raise FileNotFoundError(key)
        return data


@pytest.fixture
def glitch(monkeypatch):
    """glitch(key, how, times) -> a finished run that will be given so."""
    monkeypatch.setattr(objects, "LOOK_PAUSES", (0.0, 0.0))

    def make(key: str, how: str, times: int) -> Memory:
        backend = Glitch(0.0)
        backend.objects.update(night().backend.objects)
        backend.key, backend.how, backend.times = key, how, times
        return Memory(backend)

    return make


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("times", [2, 3])
def test_what_is_given_wrong_for_a_moment_is_not_taken_back(glitch, wanted, key, how, times):
    """Up to twice nobody hears of it; then it is the store that contradicts itself."""
    report = verify(glitch(key, how, times), decode=False)
    assert report.sound if times < 3 else all(problem.unreadable for problem in report.problems[:1]), report.problems
    store = glitch(key, how, times)
    done = repair(store, decode=False)
    assert not done.withdrawn and bool(done.left) == (times > 2)
    assert outcome(store) == wanted and not store.list(layout.WITHDRAWN)


@pytest.mark.parametrize("how", HOW)
def test_a_dead_letter_stays_for_that(glitch, wanted, how):
    store = glitch(layout.dead_letter_key("bad"), how, 2)
    assert repair(store, decode=False).problems == () and outcome(store) == wanted


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("times", [2, 3])
def test_a_driver_renders_nothing_again_for_it(glitch, wanted, how, times):
    """Of a video that is finished but for its DONE."""
    store = glitch(layout.marker_key("long", 1), how, times)
    store.delete(layout.done_key("long"))
    first = render(store)
    assert first.rendered == 0 and set(first.failed) == ({"bad"} if times < 3 else {"bad", "long"})
    assert render(store).rendered == 0 and outcome(store) == wanted


@pytest.mark.parametrize("segment", range(3))
def test_a_video_is_not_called_done_without_a_marker_that_a_newer_version_wrote(wanted, segment):
    """All of it is committed, and its driver did not live to say so."""
    store, key = night(), layout.marker_key("long", segment)
    store.delete(layout.done_key("long"))
    sound = store.get(key)
    store.put(key, sound.replace(b'"schema_version":1', b'"schema_version":2'))
    summary = render(store)
    assert set(summary.failed) == {"bad", "long"} and "long" not in summary.done and summary.rendered == 0
    assert not store.exists(layout.done_key("long"))
    store.put(key, sound)
    assert render(store).rendered == 0 and outcome(store) == wanted
