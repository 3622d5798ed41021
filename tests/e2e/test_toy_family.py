"""A family that a package adds: found, planned, rendered, with no file of flowcache touched."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest

from flowcache.families import known
from tests.e2e.rows import write
from tests.toy_family.checkpoint import SPEC, write_toy

PACKAGE = Path(__file__).parents[1] / "toy_family"  # holds the package and its .dist-info, as site-packages would
FAULTY = """
from toy_family.family import Toy

OLD, TWICE = Toy(), Toy()
OLD.policies, TWICE.policies = {"off": "nothing"}, (*Toy.policies, *Toy.policies)
"""
RENDER = """
import json, sys
from flowcache.api import RowDefaults, RunOptions, render

rows, model, output = json.loads(sys.argv[1])
done = render(rows, output=output, defaults=RowDefaults(model=model), options=RunOptions(gang=2, gangs=1))
print(json.dumps([done.exit_code, done.rendered, done.failed]))
"""


@pytest.fixture
def installed(monkeypatch):
    """The package as if it were installed in this process."""
    monkeypatch.syspath_prepend(PACKAGE)
    known.added.cache_clear()
    yield
    known.added.cache_clear()


@pytest.fixture
def toy(installed, tmp_path):
    return write_toy(tmp_path / "toy-1")


def test_it_is_found_and_looked_through(flowcache, toy):
    found = flowcache("models", toy)
    assert found.code == 0, found.err
    assert "off, flowcache, forecast; presets slow" in found.out and "multiples of 8" in found.out
    assert "order: a whole number from 1 to 3 (else 1)" in found.out
    checked = flowcache("models", "check", toy, "--json").json
    assert (checked["family"], checked["layout"], checked["problems"]) == ("toy", "toy", [])
    assert set(checked["parts"]) == {"transformer", "vae"} and checked["bytes_per_rank"]["2"]["keys_values"] > 0
    (toy / "weights" / "model.safetensors").unlink()
    assert flowcache("models", "check", toy).code == 2


def test_its_cost_is_planned_alone_and_beside_others(flowcache, toy, tmp_path):
    rows = [{"prompt": "a b", "frames": 41}, {"prompt": "a", "frames": 16, "policy": "flowcache"}]
    planned = flowcache("plan", write(tmp_path / "m.jsonl", rows), "--model", toy, "--json")
    assert planned.code == 0, planned.err
    assert (planned.json["videos"], planned.json["segments"], planned.json["chunks"]) == (2, 6, 8)
    assert set(planned.json["without_reuse"]) == {"off"} and planned.json["least"]["flops"] > 0
    assert planned.json["most"]["forwards"] == 8 * SPEC["steps"] + 4 > planned.json["least"]["forwards"]  # 4 go on
    rows.append({"prompt": "a red circle", "frames": 9, "model": "tiny-skyreels"})
    planned = flowcache("plan", write(tmp_path / "m.jsonl", rows), "--model", toy, "--json")
    assert set(planned.json["without_reuse"]) == {"off"} and planned.json["videos"] == 3


def test_rows_are_checked_by_it(flowcache, toy, tmp_path, picture):
    rows = [
        {"prompt": "a", "policy": "paper"},
        {"prompt": "a", "policy": {"name": "flowcache", "kv": {"keep": "all"}}},
        {"prompt": "a", "end_image": str(picture)},
        {"prompt": "a", "negative_prompt": "b"},
    ]
    refused = flowcache("plan", write(tmp_path / "m.jsonl", rows), "--model", toy, "--json")
    assert refused.code == 2
    for said in (
        "row 1: policy.name: got 'paper'; accepted for models of family toy: off, flowcache, forecast",
        "row 2: policy.kv: does not go with name 'flowcache'; accepted: reuse, preset, threshold, ret_steps",
        "row 3: end_image: does not go with toy-1, which starts from videos alone; accepted: none",
        "row 4: negative_prompt: does not go with toy-1",
    ):
        assert said in refused.json["error"], refused.json["error"]


SPARE = {"threshold": 100, "ret_steps": 3}  # of 6 steps the fourth and the fifth are reused
FORECAST = {"name": "forecast", "order": 2, **SPARE}


def test_rows_name_a_policy_that_it_alone_has(flowcache, toy, tmp_path):
    """`toy_family/forecast.py` and its declaration are all that there is of it."""
    asked = [
        FORECAST | {"order": 9},
        FORECAST | {"order": 1.5},
        {"name": "forecast", "ordre": 1},
        {"name": "forecast", "reuse": False},
        {"name": "flowcache", "order": 1},
        "forecast:fast",
        "forecats",
    ]
    rows = [{"prompt": "a", "policy": policy} for policy in asked]
    rows.append({"prompt": "a red circle", "model": "tiny-skyreels", "policy": FORECAST})
    refused = flowcache("plan", write(tmp_path / "m.jsonl", rows), "--model", toy, "--json")
    assert refused.code == 2
    for said in (
        "row 1: policy.order: got 9; accepted: a whole number from 1 to 3",
        "row 2: policy.order: got 1.5; accepted: a whole number from 1 to 3",
        "row 3: policy.ordre: is no known field; did you mean 'order'?",
        "row 4: policy.reuse: does not go with name 'forecast'; accepted: order, preset, threshold, ret_steps",
        "row 5: policy.order: does not go with name 'flowcache'; accepted: reuse, preset, threshold, ret_steps",
        "row 6: policy.preset: got 'fast'; accepted with toy-1: 'slow'",
        "row 7: policy: got 'forecats'; accepted: 'off', 'flowcache', 'paper', 'paper-mended', 'dense', 'teacache' or",
        "row 8: policy.name: got 'forecast'; accepted for models of family skyreels: off, dense, paper",
    ):
        assert said in refused.json["error"], refused.json["error"]
    assert flowcache("plan", tmp_path / "m.jsonl", "--model", toy, "--policy", "forecsat").code == 2


def test_a_policy_of_its_own_is_planned(flowcache, toy, tmp_path):
    def planned(**row):
        rows = write(tmp_path / "m.jsonl", [{"prompt": "a b", "frames": 16, **row}])
        found = flowcache("plan", rows, "--model", toy, "--policy", "forecast", "--json")
        assert found.code == 0, found.err
        return found.json["most"]["forwards"], found.json["least"]["forwards"]

    assert planned() == planned(policy="forecast:slow") == (12, 4)
    assert planned(policy=FORECAST) == (12, 8) and planned(policy="off") == (12, 12)


def test_a_policy_of_a_package_that_is_not_there_is_unknown(flowcache, tmp_path):
    rows = write(tmp_path / "m.jsonl", [{"prompt": "a red circle", "policy": FORECAST}])
    refused = flowcache("plan", rows, "--json")
    assert refused.code == 2
    assert (
        "policy.name: got 'forecast'; accepted: 'off', 'dense', 'paper', 'teacache', 'flowcache' or"
        in refused.json["error"]
    )


def test_it_renders_on_a_gang(flowcache, toy, tmp_path):
    """In processes that know the package by their path alone, as Ray's workers know what is installed."""
    rows = [
        {"id": "long", "prompt": "a b", "frames": 41},  # five segments, the last of one frame
        {"id": "cached", "prompt": "a c", "frames": 16, "policy": "flowcache"},
        {"id": "repeated", "prompt": "a c", "frames": 16, "seed": 1, "policy": {"name": "flowcache", **SPARE}},
        {"id": "forecast", "prompt": "a c", "frames": 16, "seed": 1, "policy": FORECAST},
    ]
    output = tmp_path / "out"
    asked = json.dumps([rows, str(toy), str(output)])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (PACKAGE, PACKAGE.parents[1])))}
    done = subprocess.run(
        [sys.executable, "-c", RENDER, asked], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 12, {}]
    assert flowcache("verify", output, "--json").json["sound"]
    assert flowcache("export", output, "--to", tmp_path / "mp4").code == 0
    for name, frames in (("long", 41), ("cached", 16)):
        with av.open(str(tmp_path / "mp4" / f"{name}.mp4")) as container:
            assert [frame.width for frame in container.decode(video=0)] == [64] * frames
    markers = [json.loads(file.read_text()) for file in output.rglob("*.json") if '"steps_reused"' in file.read_text()]
    reused = {marker["video_id"]: sum(chunk["steps_reused"] for chunk in marker["chunks"]) for marker in markers}
    assert reused["long"] == 0 < reused["cached"] and reused["repeated"] == reused["forecast"] == 2 * 2
    media = {marker["video_id"]: [chunk["sha256"] for chunk in marker["chunks"]] for marker in markers}
    assert media["forecast"] != media["repeated"]  # the same steps of the same noise, and other velocities between


def test_a_family_that_is_not_installed_is_said_so(flowcache, toy, tmp_path):
    manifest = write(tmp_path / "m.jsonl", [{"prompt": "a"}])
    (toy / "flowcache.json").write_text(json.dumps(SPEC | {"family": "other"}))
    says = f"{toy}/flowcache.json: family: got 'other'; accepted: skyreels, magi, toy, or that of an installed package"
    for command in (
        ("models", toy, "--json"),
        ("models", "check", toy, "--json"),
        ("plan", manifest, "--model", toy, "--json"),
        ("render", manifest, "--model", toy, "--output", tmp_path / "out", "--json"),
    ):
        refused = flowcache(*command)
        told = refused.json.get("error") or "; ".join(
            f"{found['file']}: {found['field']}: {found['message']}" for found in refused.json["problems"]
        )
        assert refused.code == 2 and says in told, (command, refused)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("toy = toy_family.nowhere:FAMILY", "'toy' of toy-family 1.0 can't be imported from toy_family.nowhere:FAMILY"),
        ("toy = faulty:OLD", "'toy' of toy-family 1.0: its policies are no PolicyDeclarations, each of another name"),
        ("toy = faulty:TWICE", "'toy' of toy-family 1.0: its policies are no PolicyDeclarations, each of another name"),
        ("toy = toy_family.family:Toy", "'toy' of toy-family 1.0: toy_family.family:Toy is no family of that name"),
        ("magi = toy_family.family:FAMILY", "'magi' is offered twice, by flowcache itself and by toy-family 1.0"),
    ],
)
def test_a_faulty_package_is_named(flowcache, toy, tmp_path, monkeypatch, entry, message):
    info = shutil.copytree(PACKAGE / "toy_family-1.0.dist-info", tmp_path / "site" / "toy_family-1.0.dist-info")
    (info / "entry_points.txt").write_text(f"[flowcache.families]\n{entry}\n")
    (tmp_path / "site" / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    known.added.cache_clear()
    refused = flowcache("models", toy, "--json")
    assert refused.code == 2 and message in refused.json["error"], refused
    assert flowcache("models", "tiny-magi").code == 0  # others do not mind
    rows = write(tmp_path / "m.jsonl", [{"prompt": "a red circle", "frames": 9, "policy": "paper"}])
    assert flowcache("plan", rows, "--json").code == 0
