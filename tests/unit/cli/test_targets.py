"""What can't be written is said in a sentence, with exit code 2, before the store is read."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image

from flowcache.cli.main import app, main
from flowcache.families.registry import folder_of
from flowcache.storage.objects.store import Store
from tests.unit.report.runs import hostile_run

FILES = {"report": "page.html", "sheet": "sheet.png"}
WRITING = {*FILES, "export"}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(command, where) -> exit code and what was said, of a run that is there."""
    monkeypatch.chdir(tmp_path)
    hostile_run(Store("out"))

    def call(command: str, to: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["flowcache", command, "out", "--to", to])
        try:
            main()
        except SystemExit as ended:
            return ended.code or 0, capsys.readouterr().err
        return 0, ""

    return call


def test_every_option_that_names_what_to_write_is_tested_here():
    commands = typer.main.get_command(app).commands
    assert {*WRITING, "calibrate"} == {
        name for name, command in commands.items() if any("--to" in p.opts for p in command.params)
    }


@pytest.fixture
def unread(monkeypatch):
    def fail(*_):
        raise AssertionError("the store was read")

    monkeypatch.setattr(Store, "list", fail)
    monkeypatch.setattr(Store, "get", fail)


@pytest.mark.parametrize("command", FILES)
@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("nodir/x", "lies in {here}/nodir, which does not exist"),
        ("file/x", "lies in {here}/file, which is no folder"),
        ("folder", "is a folder"),
        (".", "is a folder"),
        ("x" * 300, "can't be written (file name too long)"),
    ],
)
def test_a_file_that_cannot_be_written(run, unread, tmp_path, command, to, why):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    code, said = run(command, to)
    assert code == 2
    assert (
        said
        == f"error: --to: '{to}' {why.format(here=tmp_path)}; accepted: the path of a file in a folder that exists\n"
    )


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("file", "is a file"),
        ("file/x/y", "lies in {here}/file, which is no folder"),
        ("hdfs://h/x", "has the scheme hdfs://"),
        ("x ", "ends with a space"),
        ("x" * 300, "has a part of more than 255 bytes"),
    ],
)
def test_a_folder_that_cannot_be_written_to(run, unread, tmp_path, to, why):
    (tmp_path / "file").touch()
    code, said = run("export", to)
    assert code == 2 and said.startswith("error: --to: ") and said.count("\n") == 1
    assert why.format(here=tmp_path) in said and "accepted: a folder or URL" in said


@pytest.mark.parametrize("command", WRITING)
def test_rights_that_lack_are_told_first(run, unread, monkeypatch, command):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    code, said = run(command, "x")
    assert code == 2 and "--to: " in said and "can't be written" in said


@pytest.mark.parametrize(("option", "named"), [("--out", "--out"), ("--to", "--out"), ("--work", "--work")])
def test_folders_of_a_calibration_are_looked_at_before_it_begins(monkeypatch, tmp_path, capsys, option, named):
    (tmp_path / "file").touch()
    (tmp_path / "prompts.txt").write_text("a red circle\n" * 6)
    arguments = ["calibrate", "tiny-magi", "--prompts", str(tmp_path / "prompts.txt"), option, str(tmp_path / "file/x")]
    monkeypatch.setattr(sys, "argv", ["flowcache", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"error: {named}: ") and "which is no folder" in said


@pytest.mark.parametrize(("command", "option"), [("calibrate", "--work"), ("bench", "--out")])
@pytest.mark.parametrize("where", [".", "walks/of/mine"])
def test_nothing_is_written_into_the_checkpoint_that_it_is_of(monkeypatch, tmp_path, capsys, command, option, where):
    """Weights are known by all files of their folder: with others beside them they would be another checkpoint's."""
    folder = shutil.copytree(folder_of("tiny-magi"), tmp_path / "model")
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["flowcache", command, ".", option, where])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"error: {option}: '{where}' lies within the checkpoint .")
    assert "accepted: a folder outside of the checkpoint" in said and sorted(folder.rglob("*")) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder where even root can't write")
@pytest.mark.parametrize("command", FILES)
def test_what_fails_only_when_it_is_written_is_told_too(run, monkeypatch, command):
    monkeypatch.setattr(f"flowcache.report.{'page.report_page' if command == 'report' else 'sheet.contact_sheet'}",
                        lambda *_: "" if command == "report" else b"")  # fmt: skip
    code, said = run(command, "/proc/self/x")
    assert code == 2 and "'/proc/self/x' can't be written (" in said


@pytest.mark.parametrize("command", FILES)
def test_what_can_be_written_is(run, tmp_path, monkeypatch, command):
    monkeypatch.setattr("flowcache.report.sheet.contact_sheet", lambda store: b"png")
    assert run(command, FILES[command])[0] == 0
    assert (tmp_path / FILES[command]).stat().st_size


def test_a_sheet_moves_where_its_name_says_so(run, tmp_path):
    for name, form in {"still.png": "PNG", "moving.webp": "WEBP", "moving.GIF": "GIF"}.items():
        assert run("sheet", name) == (0, "")
        with Image.open(tmp_path / name) as image:
            assert image.format == form and (getattr(image, "n_frames", 1) > 1) == (form != "PNG")
