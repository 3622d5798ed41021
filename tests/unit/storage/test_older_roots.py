"""A root of a version that did not know a field yet: read, verified and gone on with, byte for byte."""

import io
import uuid

import pyarrow.parquet as pq
import pytest

from flowcache.storage.commits import read_commits
from flowcache.storage.documents import to_json
from flowcache.storage.layout import marker_key
from flowcache.storage.objects.store import Store
from flowcache.storage.schemas import ADDED, CHUNKS
from flowcache.storage.verify import verify
from tests.unit.storage.samples import MAP, Studio, plan, request


@pytest.fixture
def old():
    """What an older version wrote: one of two segments."""
    studio = Studio(Store(f"memory://{uuid.uuid4().hex}"), (request("cat", 2),), later=(), hardware=None)
    studio.render(plan(studio.requests)[0], None)
    return studio


def test_an_old_marker_keeps_its_bytes(old):
    data = old.store.get(marker_key("cat", 0))
    assert not any(name.encode() in data for name in ADDED)
    assert to_json(read_commits(old.store).markers["cat"][0]) == data


def test_a_newer_version_goes_on_with_it(old):
    before = old.store.get(marker_key("cat", 0))
    Studio(old.store, old.requests).run()
    assert old.store.get(marker_key("cat", 0)) == before
    assert [chunk.decisions for m in read_commits(old.store).markers["cat"] for chunk in m.chunks] == [None] * 2 + [
        MAP
    ] * 2
    assert verify(old.store).problems == ()


def test_old_tables_are_sound(old):
    old.run()
    (entry,) = old.store.list("meta/chunks")
    file = io.BytesIO()
    added = [name for name in ADDED if name in CHUNKS.names]
    pq.write_table(pq.read_table(io.BytesIO(old.store.get(entry.key))).drop_columns(added), file)
    old.store.put(entry.key, file.getvalue())
    assert verify(old.store).problems == ()
