import pytest

from flowcache.storage import ownership
from flowcache.storage.objects import store as objects
from tests.damage.scene import night, outcome


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(objects, "LOOK_PAUSES", (0.0,))
    monkeypatch.setattr(ownership, "BEAT", 0.02)
    monkeypatch.setattr(ownership, "SILENT", 0.3)


@pytest.fixture(scope="package")
def wanted():
    """What the undisturbed run gives."""
    return outcome(night())
