"""Markers from the tables: the same counts as from the markers themselves, with a few requests."""

import uuid
from dataclasses import replace

import pytest

from flowcache.report.content import content
from flowcache.storage import known, layout
from flowcache.storage.commits import list_commits, read_commits
from flowcache.storage.known import known_markers
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run, read_run
from flowcache.storage.status import Watch, status
from flowcache.storage.tables import write_tables
from tests.unit.storage.samples import Studio, plan, request

pytestmark = pytest.mark.usefixtures("used")
NOT_THERE = {
    "stream": None,
    "parent_sha256": None,
    "init_sha256": "",
    "state_key": None,
    "state_sha256": None,
    "state_bytes": 0,
}


@pytest.fixture
def used(monkeypatch):
    """Tables are used for small runs, too."""
    monkeypatch.setattr(known, "FEW", 0)


@pytest.fixture
def studio():
    """Tables were written after three of seven segments; two more came later."""
    studio = Studio(Store(f"memory://{uuid.uuid4().hex}"), (request("cat", 3), request("dog", 3), request("eel", 1)))
    begin_run(studio.store, studio.record())
    segments, parent = plan(studio.requests), None
    for segment in segments[:3]:
        parent = studio.render(segment, parent)
    write_tables(studio.store, studio.record())
    studio.render(segments[4], studio.render(segments[3], None))
    return studio


def test_rows_give_the_markers_as_far_as_tables_hold_them(studio):
    commits, run = read_commits(studio.store), read_run(studio.store)
    held = known_markers(studio.store, run)
    assert sorted(held) == [layout.marker_key("cat", number) for number in range(3)]
    for marker in held.values():
        assert marker == replace(commits.find("cat", marker.segment), **NOT_THERE)
    from_both = content(run, read_commits(studio.store, held), False, None)
    assert from_both.status == content(run, commits, False, None).status and from_both.totals.stages
    assert from_both.totals == content(run, commits, False, None).totals


def test_only_what_came_after_the_tables_is_read_by_itself(studio, monkeypatch):
    watch, real, read = Watch(studio.store), Store.get, []
    monkeypatch.setattr(Store, "get", lambda self, key: (read.append(key), real(self, key))[1])
    assert watch.status().total("segments") == 5
    assert [key for key in read if key.startswith(layout.COMMITS)] == [layout.marker_key("dog", n) for n in range(2)]


def test_a_row_without_its_marker_does_not_count(studio):
    studio.store.delete(layout.marker_key("cat", 2))
    assert status(studio.store).total("segments") == 4 == sum(map(len, list_commits(studio.store).segments.values()))


def test_a_damaged_table_is_no_harm(studio):
    (part,) = [e.key for e in studio.store.list(layout.META) if "chunks" in e.key]
    studio.store.put(part, b"PAR1 no more")
    assert known_markers(studio.store, read_run(studio.store)) == {} and status(studio.store).total("segments") == 5
