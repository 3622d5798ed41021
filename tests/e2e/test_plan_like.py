"""The estimate by an earlier run, against what then came."""

from flowcache.storage.commits import read_commits
from flowcache.storage.objects.store import Store
from tests.e2e.rows import row

CACHED = {"name": "flowcache", "preset": "fast"}


def span(root) -> float:
    """From the first segment's start to the last commit, in seconds."""
    markers = [marker for each in read_commits(Store(str(root))).markers.values() for marker in each]
    return max(marker.finished for marker in markers) - min(marker.started for marker in markers)


def test_the_estimate_by_an_earlier_run_is_near_what_comes(render, flowcache, tmp_path):
    assert render([row("a", frames=33, steps=8, policy=CACHED)], to=tmp_path / "earlier").code == 0
    rows = [row("b", frames=69, steps=8, policy=CACHED), row("c", frames=33, steps=12, policy="off")]
    assert render(rows, to=tmp_path / "out").code == 0
    asked = "plan", tmp_path / "manifest.jsonl", "--like", tmp_path / "earlier", "--until", "2099-01-01T07:00", "--json"
    estimate = flowcache(*asked).json["estimate"]
    took = span(tmp_path / "out")  # the two runs may have had a different share of the machine
    assert took / 8 < estimate["fastest"] == estimate["slowest"] < took * 8
    assert estimate["in_time"] == "yes" and estimate["gangs"] == 1
