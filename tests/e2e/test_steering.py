"""A night that is steered from somewhere else, through the store alone: the driver is a process of its own."""

import json
import os
import subprocess
import sys
import time

import pytest

from benchmarks.footprint import descendants
from flowcache.storage.commits import list_commits
from flowcache.storage.objects.store import Store
from tests.e2e.rows import row, write
from tests.fault.local_ray import alive, command

LONG = {"frames": 393, "steps": 200}  # minutes: nobody waits for its end


@pytest.fixture
def start(cluster, tmp_path):
    """start(rows, *options) -> a driver of tmp_path / "out", whose log is tmp_path / "log"."""
    started = []

    def run(rows, *options):
        manifest = write(tmp_path / "night.jsonl", rows)
        command = [sys.executable, "-m", "flowcache.cli", "render", manifest, "--output", tmp_path / "out"]
        command += ["--address", cluster, "--gangs", "1", "--json", *options]
        with (tmp_path / "log").open("a") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def ended(process) -> dict:
    """What it printed, once it has ended."""
    said, _ = process.communicate(timeout=400)
    return json.loads(said)


def until(holds, driver, seconds=400):
    """Wait for something of a driver that lives."""
    limit = time.monotonic() + seconds
    while not holds():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.2)


def test_a_night_is_steered_through_its_store(start, flowcache, tmp_path):
    root, log = tmp_path / "out", tmp_path / "log"
    first, last = row("first", frames=9, priority=9), row("last", frames=9)
    driver = start([first, row("long", priority=5, **LONG), last])
    until(lambda: "first: done" in log.read_text(), driver)

    unknown = flowcache("cancel", root, "lnog")
    assert unknown.code == 2 and "'lnog' names no video" in unknown.err and "did you mean 'long'?" in unknown.err
    paused = flowcache("pause", root, "--wait", "60", "--json").json  # first: `last` would be done in no time
    assert paused["taken"]["outcome"] == "obeyed"
    cancelled = flowcache("cancel", root, "long", "--wait", "60", "--json").json
    assert cancelled["taken"]["message"] == "cancelled: long"
    until(lambda: " was ended: " in log.read_text(), driver)

    bad = write(tmp_path / "bad.jsonl", [{**first, "steps": 3}])
    refused = flowcache("add", root, bad, "--wait", "120")
    assert refused.code == 2 and "bad.jsonl row 1: steps: got 3, but its video is rendered with 2" in refused.err
    more = write(tmp_path / "more.jsonl", [row("more", frames=9)])
    added = flowcache("add", root, more, "--wait", "120", "--json").json
    assert added["taken"]["outcome"] == "obeyed" and "1 added" in added["taken"]["message"]
    now = flowcache("status", root, "--json").json
    states = {one["video_id"]: one["state"] for one in now["videos"]}
    assert (states["first"], states["long"], states["more"]) == ("done", "cancelled", "waiting")
    assert now["paused"] and [one["outcome"] for one in now["commands"]] == ["obeyed", "obeyed", "refused", "obeyed"]

    driver.kill()
    driver.wait()
    again = start([first, row("long", priority=5, **LONG), last])
    until(lambda: "took over" in log.read_text(), again)
    resumed = flowcache("resume", root, "--wait", "120", "--json").json
    assert resumed["taken"]["outcome"] == "obeyed"
    end = ended(again)
    assert (
        end["exit_code"] == 0 and set(end["done"]) == {"first", "last", "more"} and end["cancelled"].keys() == {"long"}
    )
    assert list_commits(Store(str(root))).done == {"first", "last", "more"}
    events = [json.loads(line) for line in flowcache("status", root, "--follow", "--json").out.splitlines()]
    assert {one.get("video") for one in events if one["event"] == "video done"} == {"first", "last", "more"}
    assert [one["exit_code"] for one in events if one["event"] == "run ended"] == [0]
    assert flowcache("verify", root).code == 0


def ranks() -> dict[int, str]:
    """Processes of our Ray that are at a segment: what they do, by their ids."""
    doing = {pid: command(pid) for pid in descendants(os.getpid(), set())}
    return {pid: title for pid, title in doing.items() if title.startswith(("ray::RankActor.", "ray::RankActor:"))}


@pytest.mark.slow
def test_a_cancelled_video_of_two_ranks_is_ended_under_way(start, flowcache, tmp_path):
    """They would stop at different steps, so their gang goes. Its segment, which takes minutes, is never committed."""
    root, log = tmp_path / "out", tmp_path / "log"
    driver = start([row("long", priority=5, **LONG), row("last", frames=9)], "--gang", "2")
    until(lambda: {"ray::RankActor.render", "ray::RankActor.assist"} <= set(ranks().values()), driver)
    at_it = ranks()
    assert len(at_it) == 2
    cancelled = flowcache("cancel", root, "long", "--wait", "120", "--json").json
    assert cancelled["taken"]["message"] == "cancelled: long"
    until(lambda: " was ended: its video was cancelled" in log.read_text(), driver)
    assert alive(at_it) == []
    until(lambda: set(ranks()) - set(at_it), driver)  # the resources are another gang's
    end = ended(driver)
    assert end["exit_code"] == 0 and end["done"] == ["last"] and end["cancelled"].keys() == {"long"}
    assert list_commits(Store(str(root))).segments == {"last": [0]}


def test_a_stopped_run_goes_on_and_a_finished_one_takes_no_commands(start, render, flowcache, tmp_path):
    root = tmp_path / "out"
    rows = [row("long", **LONG)]
    driver = start(rows, "--set", "steps=199")
    until(lambda: list(root.glob("_holders/*.json")), driver)
    told = flowcache("stop", root, "--wait", "120", "--json").json
    assert told["taken"]["outcome"] == "obeyed"
    said, _ = driver.communicate(timeout=400)
    assert driver.returncode == 5 and "told by command 1 (stop)" in said, (driver.returncode, said)
    assert flowcache("stop", root).code == 2  # nobody is there
    waits = flowcache("skip", root, "long")
    assert waits.code == 0 and "the next one obeys it" in waits.out
    assert render(rows, "--set", "steps=199").json["cancelled"].keys() == {"long"}
    done = tmp_path / "done"
    assert render([row("quick", frames=9)], to=done).code == 0
    refused = flowcache("pause", done)
    assert refused.code == 2 and "holds a finished run" in refused.err and "1 videos are done" in refused.err


@pytest.mark.parametrize("command", ["status", "verify", "report", "pause", "gc", "repair"])
def test_an_output_that_is_not_there_is_exit_code_2(command, flowcache, tmp_path):
    done = flowcache(command, tmp_path / "nothing", *(["--to", tmp_path / "r.html"] if command == "report" else []))
    assert done.code == 2 and "holds no run" in done.err and done.err.count("\n") == 1
