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
    assert code == 1 and said.startswith("error: 1 of 2 files not exported: ") and said.count("\n") == 1
    assert [path.name for path in (tmp_path / "films").glob("*.*")] == ["dog.mp4"]


@pytest.mark.parametrize("form", ["webdataset", "huggingface", "lerobot"])
def test_a_dataset_of_which_a_video_is_damaged_is_not_begun(run, tmp_path, form):
    Store("out").put(layout.marker_key("cat", 0), b"{")
    code, said = run("out", "--to", "set", "--format", form)
    assert code == 1 and said.startswith("error: 1 of 2 videos not exported: ") and not (tmp_path / "set").exists()
    assert run("out", "--to", "set", "--format", form, "--only", "dog") == (0, "")


@pytest.mark.parametrize("option", ["--thumbnails", "--sheets"])
def test_pictures_go_with_mp4_alone(run, option):
    code, said = run("out", "--format", "lerobot", option)
    assert code == 2 and option in said
    assert run("out", option) == (0, "")


def test_the_endpoint_is_that_of_a_target_in_the_same_cloud_too():
    from flowcache.cli.export import _target

    endpoint = "http://localhost:9"
    assert _target("s3://bucket/films", endpoint).options == {"endpoint_url": endpoint}
    assert _target("films", endpoint).options == {}


@pytest.mark.parametrize("to", ["out", "out/meta", "./out/../out/films"])
def test_a_run_is_not_exported_into_itself(run, to):
    before = [entry.key for entry in Store("out").list()]
    code, said = run("out", "--to", to, "--format", "lerobot")
    assert code == 2 and "lies in the run's own folder" in said
    assert [entry.key for entry in Store("out").list()] == before


def test_a_file_of_somebody_elses_stays_unless_it_is_said(run, tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "cat.mp4").write_text("mine")
    code, said = run("out", "--to", "films")
    assert code == 2 and said.startswith("error: --to: ") and "holds cat.mp4, written by no export" in said
    assert [path.name for path in (tmp_path / "films").iterdir()] == ["cat.mp4"]
    assert run("out", "--to", "films", "--overwrite") == (0, "")
    assert (tmp_path / "films" / "cat.mp4").stat().st_size > 100
