"""A root that grows, as its user sees it: what was made stays, what differs is refused, what is new comes."""

import json

from flowcache.storage.objects.store import Store
from tests.e2e.rows import row

ROWS = [row("one", frames=9, labels={"team": "a"}), row("two", frames=9)]


def test_a_root_grows_row_by_row(render, flowcache, tmp_path):
    bad = render(ROWS, "--device", "cuda")
    assert bad.code == 2  # claims nothing
    first = render(ROWS, "--set", "seed=3", "--only", "one")
    assert first.code == 0 and first.json["done"] == ["one"], first.err
    root = tmp_path / "out"
    store = Store(str(root))
    made = {entry.key: store.get(entry.key) for prefix in ("_commits", "media") for entry in store.list(prefix)}
    grown = [{**ROWS[0], "seed": 3, "labels": {"team": "b"}}, ROWS[1], row("three", frames=9)]
    refused = render(grown)
    assert refused.code == 2 and "video two is new" in refused.json["error"]
    look = render(grown, "--extend", "--where", "labels.team is null", "--limit", "1", "--dry-run")
    assert [(one["video_id"], one["state"], one["segments"]) for one in look.json["rows"]] == [("two", "new", 1)]
    other = render([{**grown[0], "seed": 4}, *grown[1:]], "--extend", "--dry-run")
    assert other.code == 2 and other.json["refused"][0]["field"] == "seed" and other.json["refused"][0]["row"] == 1
    there = render(grown, "--extend", "--as", "{id}-4", "--set", "seed=4", "--only", "one", "--dry-run")
    assert there.code == 0 and [one["video_id"] for one in there.json["rows"]] == ["one-4"]
    last = render(grown, "--extend")
    assert last.code == 0 and sorted(last.json["done"]) == ["one", "three", "two"], last.err
    assert all(store.get(key) == data for key, data in made.items())
    assert flowcache("verify", root).code == 0
    states = json.loads(flowcache("status", root, "--json").out)
    assert {one["video_id"]: one["state"] for one in states["videos"]} == dict.fromkeys(("one", "two", "three"), "done")
    assert flowcache("gc", root, "--grace", "0", "--json").code == 0 and (root / "_SUCCESS").exists()
