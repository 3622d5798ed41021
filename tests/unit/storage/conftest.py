"""A finished small run, rendered once and copied for each test that breaks something in it."""

import uuid

import pytest

from flowcache.storage.objects import store as objects
from flowcache.storage.objects.store import Store
from tests.unit.storage.samples import Studio, request

REQUESTS = (request("cat", 3), request("dog", 1, labels={}, policy={"name": "off"}))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What is damaged is looked at again at once."""
    monkeypatch.setattr(objects, "LOOK_PAUSES", (0.0,) * 5)


@pytest.fixture(scope="session")
def _rendered():
    studio = Studio(Store(f"memory://{uuid.uuid4().hex}"), REQUESTS)
    studio.run()
    return {entry.key: studio.store.get(entry.key) for entry in studio.store.list()}


@pytest.fixture
def studio(_rendered):
    """Two videos, `cat` of three segments and `dog` of one; done, with tables and _SUCCESS."""
    store = Store(f"memory://{uuid.uuid4().hex}")
    for key, data in _rendered.items():
        store.put(key, data)
    return Studio(store, REQUESTS)
