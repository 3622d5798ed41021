"""Damage of a real render: named, withdrawn, and rendered again to the same bytes."""

import json

from flowcache.storage import layout
from flowcache.storage.commits import read_commits
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store
from tests.e2e.rows import row
from tests.fault.outcome import outcome

ROWS = [row("long", frames=69), row("short", frames=9)]


def flip(store: Store, key: str) -> None:
    data = bytearray(store.get(key))
    data[-3] ^= 0x80  # of a float's last byte the sign
    store.put(key, bytes(data))


def test_damage_is_rendered_again_to_the_same_bytes(render, flowcache, tmp_path):
    assert render(ROWS).code == 0
    root = tmp_path / "out"
    store, wanted = Store(str(root)), outcome(root)
    long = read_commits(store).markers["long"]
    assert len(long) > 1
    store.delete(long[0].state_key)
    texts = [found.entry.key for found in listed(store, layout.TEXTS)]
    for key in (long[1].chunks[-1].key, layout.init_key("short"), *texts):
        flip(store, key)
    store.delete(layout.playlist_key("short"))
    found = flowcache("verify", root, "--json")
    assert found.code == 4 and len(json.loads(found.out)["problems"]) == 4 + len(texts)
    made = render(ROWS, "--repair")
    assert made.code == 0, made.err
    assert made.json["rendered"] == sum(len(marker.chunks) for marker in long)
    assert outcome(root) == wanted
    again = flowcache("repair", root, "--json")
    assert again.code == 0 and json.loads(again.out)["problems"] == []
