"""`flowcache export` of several videos."""

import sys

import pytest

from flowcache.cli.main import main
from flowcache.storage import layout
from flowcache.storage.objects.store import Store
from tests.unit.storage.samples import Studio, request


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(option, ...) -> exit code and what was said, of a run of two videos."""
    monkeypatch.chdir(tmp_path)
    Studio(Store("out"), (request("cat", 1), request("dog", 1))).run()

    def call(*options: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["flowcache", "export", *options])
        try:
            main()
        except SystemExit as ended:
            return ended.code or 0, capsys.readouterr().err
        return 0, ""

    return call


def test_what_is_sound_is_exported_where_another_video_is_damaged(run, tmp_path):
    Store("out").put(layout.init_key("cat"), b"somebody else's")
    code, said = run("out", "--to", "films")
    assert code == 1 and said.startswith("error: 1 of 2 videos not exported: ") and said.count("\n") == 1
    assert [path.name for path in (tmp_path / "films").iterdir()] == ["dog.mp4"]


def test_the_endpoint_is_that_of_a_target_in_the_same_cloud_too(run, monkeypatch):
    given = {}
    monkeypatch.setattr(
        "flowcache.storage.export.export", lambda store, name, file, **options: given.update({file: options}) or 1
    )
    monkeypatch.setattr("flowcache.storage.commits.read_commits", lambda store: type("Commits", (), {"done": {"cat"}}))
    endpoint = {"endpoint_url": "http://localhost:9"}
    for to in ("s3://bucket/films", "films"):
        assert run("s3://bucket/run", "--to", to, "--endpoint-url", endpoint["endpoint_url"])[0] == 0
    assert given == {"s3://bucket/films/cat.mp4": endpoint, "films/cat.mp4": {}}
