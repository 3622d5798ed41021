"""The short form of the soak: a few videos on two nodes, some of everything done to them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("commands", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_night_of_faults_loses_nothing(commands):
    options = [
        "--videos=5",
        "--gangs=2",
        "--actions=4",
        "--rate=0.08",
        "--faults=8",
        f"--commands={commands}",
        "--every=0.6",
        "--seed=13",
        "--server=moto",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.soak", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr[-8000:]
    found = json.loads(done.stdout)
    assert (found["done"], found["dead"], found["lost"]) == (4, 1, 0) and found["total"] >= 8
    assert found["commands"] == commands + 2  # each taken once, by whichever driver
    given = {name.partition(":")[0] for name in found["faults"]}
    assert given >= {"S3", "driver killed", "node killed"}, found["faults"]
