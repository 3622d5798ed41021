"""Plans: what is accepted, and that everything follows from plan and step."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.bench.shapes import KINDS, MOTIONS
from flowcache.errors import InputError
from flowcache.families.registry import find
from training.loop import CHECKPOINT
from training.plan import Plan, read_plan, split
from training.train import Options, check, train

PLANS = sorted(Path("training/plans").glob("*.yaml"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_plans_can_be_trained(path):
    plan = read_plan(path)
    check(plan)
    assert plan.rates[-1][0] == plan.steps and max(plan.keep, default=0) <= plan.steps
    assert plan.world.kinds == KINDS and plan.world.motions == tuple(MOTIONS)  # all of them, from the first step on


GOOD = {"task": "skyreels", "stages": [{"until": 5, "batch": {"image": 2}}], "rates": [[0, 1e-3], [5, 0]]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stages": []}, "stages: "),
        ({"stages": [{"until": 5, "batch": {}}]}, "stages.0.batch"),
        ({"stages": [{"until": 5, "batch": {"image": 0}}]}, "stages.0.batch.image"),
        ({"stages": [GOOD["stages"][0], GOOD["stages"][0]]}, "order of their steps"),
        ({"rates": [[5, 1e-3], [0, 0]]}, "order of their steps"),
        ({"rates": [[0, -1]]}, "rates.0.1"),
        ({"kinds": ["circle", "blob"]}, "kinds.1"),
        ({"ema": 1}, "ema"),
        ({"colour": "red"}, "colour"),
        ({"stages": [{"until": 5, "batch": {"image": 2}, "weights": {"blob": 0.5}}]}, "weights blob"),
        ({"stages": [{"until": 5, "batch": {"image": 2}, "emphasis": {"1": 2}}]}, "emphasis 1"),
        ({"stages": [{"until": 5, "batch": {"half": 2}}]}, "stages.0.batch: half; accepted: 1, 2, 3, 4, 5, image"),
        ({"stages": [{"until": 5, "batch": {"1": 2}, "shares": {"later": 0.5}}]}, "stages.0.shares: later; accepted"),
        ({"task": "refiner"}, "stages.0.batch: image; accepted: clip"),
    ],
    ids=str,
)
def test_bad_plans_end_before_work_starts(tmp_path, change, said):
    path, out = tmp_path / "plan.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(ValueError, match="plan.yaml") as fault:
        train(Options(path, out))
    assert said in str(fault.value) and not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"processes": 0}, "--processes 0"),
        ({"begin": 5}, "accepted: 0 to 4"),
        ({"begin": -1}, "accepted: 0 to 4"),
        ({"start": Path(find("tiny-magi").path)}, "is of the family magi; accepted: skyreels"),
        ({"start": Path("nowhere")}, "nowhere"),
        ({"codec": Path("nowhere")}, "nowhere"),
        ({"out": "run"}, "holds a run of magi"),
    ],
    ids=str,
)
def test_bad_options_end_before_work_starts(tmp_path, options, said):
    path, out = tmp_path / "plan.yaml", tmp_path / options.pop("out", "out")
    path.write_text(yaml.safe_dump(GOOD))
    (tmp_path / "run").mkdir()
    torch.save({"plan": json.dumps(GOOD | {"task": "magi"})}, tmp_path / "run" / CHECKPOINT)
    with pytest.raises((ValueError, InputError)) as fault:
        train(Options(path, out, **options))
    assert said in str(fault.value) and not (out / "log.jsonl").exists()


def test_the_program_says_what_is_wrong_and_exits_with_2(tmp_path):
    run = [sys.executable, "-m", "training.train", "--plan", tmp_path / "no.yaml", "--out", tmp_path / "out"]
    ended = subprocess.run(run, capture_output=True, text=True)
    assert ended.returncode == 2 and "no.yaml" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("text", ["a: [", "- 1", "\x00"])
def test_what_is_no_plan(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="plan.yaml"):
        read_plan(path)


def test_a_missing_plan(tmp_path):
    with pytest.raises(ValueError, match="no.yaml"):
        read_plan(tmp_path / "no.yaml")


batches = st.dictionaries(st.sampled_from(["image", "1", "3", "5"]), st.integers(1, 40), min_size=1)


@given(batches, st.integers(1, 5))
@settings(deadline=None)
def test_each_row_is_one_process_s(batch, processes):
    cost = {"image": 1, "1": 3, "3": 9, "5": 15}
    parts = split(batch, cost, processes)
    rows = sorted((length, row) for part in parts for length, mine in part.items() for row in mine)
    assert rows == sorted((length, row) for length, number in batch.items() for row in range(number))
    loads = [sum(cost[length] * len(mine) for length, mine in part.items()) for part in parts]
    assert max(loads) - min(loads) <= max(cost[length] for length in batch)


def test_rates_and_room():
    stages = [{"until": 10, "batch": {"1": 1}}, {"until": 300, "batch": {"2": 1}}]
    rates = [[0, 0.004], [200, 0.004], [300, 0]]
    plan = Plan.model_validate(GOOD | {"rates": rates, "spread": 400, "warmup": 100, "stages": stages})
    assert plan.rate(0) == pytest.approx(0.00004) and plan.rate(99) == plan.rate(200) == 0.004
    assert plan.rate(250) == pytest.approx(0.002)
    assert plan.rate(150, begun=150) == pytest.approx(0.00004)  # it warms up where it begins
    assert (plan.room(0), plan.room(400), plan.room(10**6)) == (0.2, 1, 1)
    assert [*plan.stage(9).batch] == ["1"] and [*plan.stage(10).batch] == ["2"] and plan.steps == 300
