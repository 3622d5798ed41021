"""`flowcache status --watch`: what a person and a log see, and when it ends."""

import io
import json
import time

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flowcache.cli import status as command
from flowcache.cli.main import app
from flowcache.storage.commits import DeadLetter, Stopped, dead_letter, stopped, withdraw_stopped
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run
from tests.unit.storage.samples import Studio, plan, request


@pytest.fixture
def studio(tmp_path):
    studio = Studio(Store(str(tmp_path / "out")), (request("cat", 2), request("red.dog", 1)))
    begin_run(studio.store, studio.record())
    return studio


@pytest.fixture
def acted(studio, monkeypatch):
    """Instead of sleeping, the run goes on by a step."""
    first, second, other = plan(studio.requests)
    steps = iter(
        [
            lambda: None,
            lambda: studio.render(first, None),
            lambda: dead_letter(studio.store, DeadLetter(other.video_id, 0, 0, "[b]no", "work", 3, "", None)),
            studio.run,
        ]
    )
    monkeypatch.setattr(time, "sleep", lambda seconds: next(steps)())
    return studio


def watch(studio, *options):
    return CliRunner().invoke(app, ["status", studio.store.url, "--watch", *options])


def test_a_log_gets_a_line_whenever_something_happened(acted):
    done = watch(acted)
    lines = [line.partition(": ")[2] for line in done.output.splitlines()]
    assert lines[0] == "2 waiting; 0/6 chunks; 0% of steps reused"
    assert lines[1].startswith("1 running, 1 waiting; 2/6 chunks; 25% of steps reused; 48 chunks a minute, about 5.0 s")
    assert lines[2].startswith("1 running, 1 dead; 2/6 chunks") and "about 2.5 s left; last commit" in lines[2]
    assert lines[3] == "2 done; 6/6 chunks; 25% of steps reused" and len(lines) == 4
    assert done.exit_code == 0


def test_json_is_one_document_at_the_end(acted):
    done = watch(acted, "--json")
    assert [video["state"] for video in json.loads(done.output)["videos"]] == ["done", "done"]


def test_a_terminal_is_redrawn(acted, monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(command, "out", console)
    assert watch(acted).exit_code == 0
    text = console.file.getvalue()
    assert "[b]no" in text and "red.dog" in text and text.count("chunks a minute") == 2


def test_it_ends_where_the_run_stopped_and_goes_on_when_that_does(studio):
    first, *_ = plan(studio.requests)
    studio.render(first, None)
    stopped(studio.store, Stopped(studio.record().run_id, "its deadline came", 5, 2, 0.0))
    done = watch(studio)
    assert done.exit_code == 5 and "1 waiting, 1 partial" in done.output and "stopped: its deadline came" in done.output
    withdraw_stopped(studio.store)
    assert "1 running, 1 waiting" in CliRunner().invoke(app, ["status", studio.store.url]).output


def test_it_ends_with_the_runs_exit_code(studio):
    for name in ("cat", "red.dog"):
        dead_letter(studio.store, DeadLetter(name, 0, 0, "no", "work", 3, "", None))
    assert watch(studio).exit_code == 3
