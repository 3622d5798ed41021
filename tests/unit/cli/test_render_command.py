"""Every option of `flowcache render` reaches the run."""

import inspect
import sys

import pytest
from typer.testing import CliRunner

from flowcache.cli.main import app, main
from flowcache.cli.render import render
from flowcache.errors import InputError, Problem
from flowcache.inputs.deadline import deadline
from flowcache.inputs.job import JobSpec
from flowcache.inputs.options import RunOptions
from flowcache.inputs.sources import Manifests
from flowcache.progress.json_lines import JsonProgress
from flowcache.scheduler.summary import Summary

UNTIL = "2100-01-01T07:00+00:00"
HOW = RunOptions(
    gang=2,
    gangs=3,
    shard_weights=True,
    threads=4,
    device="cpu",
    dtype="fp32",
    weights="int8",
    vae_dtype="bf16",
    vae_tiling="on",
    compile=True,
    watermark="mine:mark",
    watermark_payload="ours",
    finish="mine:finish",
    address="auto",
    retry_failed=True,
    until=deadline(UNTIL),
    wait_for_gpus=1800.0,
    allow_private_media=True,
)
WRITTEN = (
    "m.jsonl --output out --model tiny-magi --policy paper --gang 2 --gangs 3 --shard-weights --threads 4 --device cpu "
    "--dtype fp32 --weights int8 --vae-dtype bf16 --vae-tiling on --compile "
    "--watermark mine:mark --watermark-payload ours --finish mine:finish "
    f"--address auto --until {UNTIL} "
    "--wait-for-gpus 30m --succeed-with 5 "
    "--keep-going --allow-private-media --retry-failed --log-json --webhook https://host/x "
    "--endpoint-url http://localhost:1 --json"
)


@pytest.fixture
def asked(monkeypatch):
    """What `flowcache.api.render` is called with."""
    given = {}

    def fake(requests, **options):
        given.update(options, requests=requests)
        return Summary("run", "out", ("v",), {"w": "lost"}, {}, 5, 1.0)

    monkeypatch.setattr("flowcache.api.render", fake)
    return given


def test_every_option_reaches_the_run(asked):
    done = CliRunner().invoke(app, ["render", *WRITTEN.split()])
    assert done.exit_code == 3 and '"failed"' in done.output
    assert (asked["requests"], asked["output"], asked["options"]) == (Manifests(("m.jsonl",)), "out", HOW)
    assert (asked["defaults"].model, asked["defaults"].policy.name) == ("tiny-magi", "paper")
    assert asked["keep_going"] and asked["storage_options"] == {"endpoint_url": "http://localhost:1"}
    assert isinstance(asked["progress"].listener, JsonProgress) and asked["webhook"] == "https://host/x"


def test_a_job_is_replaced_by_options_alone(asked, tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("manifest: m.csv\noutput: here\ngang: 4\nexchange_timeout: 60\nkeep_going: true\n")
    CliRunner().invoke(app, ["render", "--job", str(job), "--gang", "2", "--output", "there"])
    assert (asked["requests"], asked["output"], asked["keep_going"]) == (Manifests(("m.csv",)), "there", True)
    assert asked["options"] == RunOptions(gang=2, exchange_timeout=60.0)


def test_what_is_written_above_has_every_option_of_a_job():
    of_job = inspect.signature(render).parameters.keys() & JobSpec.model_fields.keys()
    absent = [name for name in of_job - {"manifest"} if f"--{name.replace('_', '-')} " not in WRITTEN]
    assert len(of_job) == 24 and absent == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "is missing"),
        ("", "is empty"),
        ("{,}", "is no table of media: Expecting property name"),
        ("[1]", "is no table of media: got list; accepted: an object"),
        ("{" * 100_000, "is no table of media"),
        ('{"a.png": 3}', "a.png: got 3; accepted: a path or URL"),
        ('{"a.png": " "}', "a.png: got ' '; accepted: a path or URL"),
        ('{"a.png": {"b": 1}}', "a.png: got an object of 1 entry; accepted: a path or URL"),
    ],
)
def test_a_broken_table_of_media_is_refused(asked, tmp_path, content, why):
    table = tmp_path / "media.json"
    if content is not None:
        table.write_text(content)
    done = CliRunner().invoke(app, ["render", "m.jsonl", "--output", "out", "--media", str(table)])
    assert isinstance(done.exception, InputError) and f"{table}: {why}" in str(done.exception)
    assert not asked


def test_a_table_of_media_reaches_the_run(asked, tmp_path):
    (tmp_path / "media.json").write_text('{"a.png": "media-1"}')
    CliRunner().invoke(app, ["render", "m.jsonl", "--output", "out", "--media", str(tmp_path / "media.json")])
    assert asked["media"] == {"a.png": "media-1"}


def bad() -> Summary:
    raise InputError([Problem("m.jsonl", "", "no answer")])


def good() -> Summary:
    return Summary("run", "out", ("v",), {}, {}, 5, 1.0)


@pytest.mark.parametrize(
    ("options", "looks", "code", "stopped"),
    [
        ("", [bad], 2, 0),
        ("--stop-on-bad-input", [bad, bad], 2, 1),
        ("--stop-on-bad-input", [bad, good], 0, 0),  # the store was away
        ("--stop-on-bad-input --until never", [], 2, 1),  # what was written will not change
        ("--stop-on-bad-input --hurry", [], 2, 1),
        ("--hurry", [], 2, 0),
    ],
)
def test_bad_input_stops_the_ray_job_where_that_is_asked_for(monkeypatch, options, looks, code, stopped):
    calls, left = [], list(looks)
    monkeypatch.setattr("flowcache.api.render", lambda requests, **given: left.pop(0)())
    monkeypatch.setattr("flowcache.runtime.started_as.stop_job", lambda: calls.append("stopped"))
    monkeypatch.setattr("flowcache.cli.render.LOOK_AGAIN", 0.0)
    monkeypatch.setattr(sys, "argv", ["flowcache", "render", "m.jsonl", "--output", "out", *options.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, len(calls), left) == (code, stopped, [])
