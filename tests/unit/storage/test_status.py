"""Rate and time left, from commits alone."""

import uuid
from dataclasses import replace

import pytest

from flowcache.storage.commits import DeadLetter, dead_letter
from flowcache.storage.layout import COMMITS, marker_key
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run
from flowcache.storage.status import RECENT, Watch, chunk_rate, status
from tests.unit.storage.samples import Studio, plan, request


@pytest.fixture
def studio():
    """Begun, nothing committed: two videos of three segments of two chunks, and one that waits."""
    requests = request("cat", 3), request("dog", 3), request("eel", 1)
    studio = Studio(Store(f"memory://{uuid.uuid4().hex}"), requests)
    begin_run(studio.store, studio.record())
    return studio


def at(marker, *times):
    return [replace(marker, started=started, finished=finished) for started, finished in times]


def test_the_rate_is_of_the_time_in_which_something_was_under_way(studio):
    marker = studio.render(plan(studio.requests)[0], None)  # two chunks
    assert chunk_rate([]) is None
    assert chunk_rate(at(marker, (0, 10))) == pytest.approx(0.2)
    assert chunk_rate(at(marker, (0, 10), (0, 10), (10, 20))) == pytest.approx(0.3)  # two gangs, then one
    assert chunk_rate(at(marker, (0, 10), (90_000, 90_010))) == pytest.approx(0.2)  # a day's rest between them
    assert chunk_rate(at(marker, (5, 5))) is None


def test_the_latest_commits_count(studio):
    marker = studio.render(plan(studio.requests)[0], None)
    slow = at(marker, *((10 * n, 10 * n + 10) for n in range(50)))
    fast = at(marker, *((500 + n, 501 + n) for n in range(RECENT)))
    assert chunk_rate(slow + fast) == pytest.approx(2)


def test_the_rate_of_many_gangs_is_not_that_of_their_segments(studio):
    """A hundred gangs, each of whose segments takes 100 s: one commits every second."""
    marker = studio.render(plan(studio.requests)[0], None)
    steady = at(marker, *((n - 100, n) for n in range(100, 100 + 2 * RECENT)))
    assert chunk_rate(steady) == pytest.approx(2)


def test_time_left_leaves_out_what_is_dead(studio):
    assert (status(studio.store).rate, status(studio.store).seconds_left) == (None, None)
    segments = plan(studio.requests)
    studio.render(segments[0], None)  # 2.5 s by the samples
    report = status(studio.store)
    assert report.rate == pytest.approx(2 / 2.5) and report.last_commit == 102.5
    assert report.seconds_left == pytest.approx((4 + 6 + 2) / report.rate) and not report.ended
    dead_letter(studio.store, DeadLetter("dog", 0, 0, "no", "work", 3, "", None))
    report = status(studio.store)
    assert report.seconds_left == pytest.approx((4 + 2) / report.rate)
    assert [video.state for video in report.videos] == ["running", "dead", "waiting"]


def test_the_end_of_a_run_with_dead_videos(studio):
    for name in ("cat", "dog", "eel"):
        assert not status(studio.store).ended
        dead_letter(studio.store, DeadLetter(name, 0, 0, "no", "work", 3, "", None))
    assert status(studio.store).ended and not status(studio.store).finished


def test_each_marker_is_read_once(studio, monkeypatch):
    segments, watch = plan(studio.requests), Watch(studio.store)
    real, read = Store.get, []
    monkeypatch.setattr(Store, "get", lambda self, key: (read.append(key), real(self, key))[1])
    parent = studio.render(segments[0], None)
    assert watch.status().total("segments") == 1
    studio.render(segments[1], parent)
    studio.render(segments[3], None)
    report = watch.status()
    assert (report.total("segments"), report.total("chunks")) == (3, 6)
    assert [key for key in read if key.startswith(COMMITS)] == [
        marker_key(name, number) for name, number in (("cat", 0), ("cat", 1), ("dog", 0))
    ]
    assert report == status(studio.store)
