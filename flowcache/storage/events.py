"""The events of a run, as its drivers wrote them."""

import json
from typing import Any

from flowcache.storage import layout
from flowcache.storage.documents import read_each
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store


def read_events(store: Store, seen: set[str]) -> list[dict[str, Any]]:
    """What was written since, driver by driver in its order. seen: keys that were read before; new ones are added."""
    new = sorted((one.attempt, one.number, one.entry.key) for one in listed(store, layout.EVENTS, "events"))
    events: list[dict[str, Any]] = []
    for key, data in read_each(store, [key for *_, key in new if key not in seen]):
        if isinstance(data, bytes):
            seen.add(key)
            events += lines_of(data)
    return events


def lines_of(data: bytes) -> list[dict[str, Any]]:
    """Lines that are damaged are left out: what they told shows elsewhere."""
    found: list[dict[str, Any]] = []
    for line in data.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            found.append(event)
    return found
