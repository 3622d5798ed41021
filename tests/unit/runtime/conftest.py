import pytest

from flowcache.runtime import metrics


class FakeMetric:
    """Takes the place of Ray's counters and gauges; remembers what was recorded."""

    def __init__(self, name, description, tag_keys=()):
        self.name, self.tag_keys, self.values = name, set(tag_keys), {}

    def inc(self, value=1.0, tags=None):
        key = self._key(tags)
        assert value > 0  # as Ray's
        self.values[key] = self.values.get(key, 0) + value

    def set(self, value, tags=None):
        self.values[self._key(tags)] = value

    def _key(self, tags):
        assert set(tags or {}) == self.tag_keys
        return tuple((tags or {}).values())


@pytest.fixture
def fake_metrics(monkeypatch):
    monkeypatch.setattr(metrics, "Counter", FakeMetric)
    monkeypatch.setattr(metrics, "Gauge", FakeMetric)
