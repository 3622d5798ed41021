"""docs/python.ipynb does what it says: its cells, one after the other, on the tests' cluster."""

import json
from pathlib import Path

from flowcache.api import RunOptions, render
from flowcache.storage.objects.store import Store

NOTEBOOK = Path(__file__).parents[2] / "docs" / "python.ipynb"


def cells() -> list[tuple[str, list[str]]]:
    found = json.loads(NOTEBOOK.read_text())["cells"]
    return [("".join(one["source"]), one["metadata"].get("tags", [])) for one in found if one["cell_type"] == "code"]


def test_the_notebook_runs(tmp_path, monkeypatch, cluster):
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    for number, (code, tags) in enumerate(cells(), 1):
        exec(compile(code, f"{NOTEBOOK.name} cell {number}", "exec"), space)
        if "parameters" in tags:
            space["options"] = RunOptions(gangs=1, address=cluster)
    assert set(space["watched"]) == {"1", "2", "from-grey"} == set(space["summary"].done)
    assert [(one.row, one.field) for one in space["problems"]] == [(1, "sede"), (2, "prompt")]
    assert {video.state for video in space["found"].videos} == {"done"}
    assert space["page"] == Path("report.html").read_text() and "from-grey" in space["page"]
    given = [entry.key for entry in Store("notebook-output").list("_given")]
    assert len(given) == 1 and given[0].startswith("_given/sha256-")

    again = render(space["rows"], output="notebook-output", defaults=space["defaults"], options=space["options"])
    assert again.rendered == 0 and len(again.done) == 3


def test_outputs_are_not_kept_in_the_notebook():
    found = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(one.get("outputs") for one in found)
