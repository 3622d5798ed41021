"""`flowcache calibrate` by gangs of two ranks through a real Ray finds what one process finds, rank lost or not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from flowcache.families.calibrations import FILE
from flowcache.runtime import walk_gang
from flowcache.worker import calibration
from flowcache.worker.asks import Fit

pytestmark = pytest.mark.slow
ASKED = ("--n", 6, "--budgets", "0.6", "--schedules", 3, "--json")


@pytest.fixture
def calibrated(flowcache, checkpoint, tmp_path, monkeypatch):
    """calibrated(name, ...) -> (the printed document, calibration.json); what was found is always kept."""
    monkeypatch.setattr(calibration, "surely", lambda differences: True)

    def call(name: str, *options) -> tuple[dict, dict]:
        where = ("--work", tmp_path / f"{name}-walks", "--out", tmp_path / name)
        made = flowcache("calibrate", checkpoint, *ASKED, *where, *options)
        assert made.code == 0, made.err
        return made.json, json.loads((tmp_path / name / FILE).read_text())

    return call


def victim(folder: Path) -> type[walk_gang.WalkActor]:
    """Rank 1 dies among the exchanges of a walk; of the next gang rank 0 with half-walked windows."""

    class Victim(walk_gang.WalkActor):
        def join_group(self, path):
            found, self.fits, self.calls = super().join_group(path), 0, 0
            exchange = dist.all_to_all_single

            def counted(*arguments, **options):
                self.calls += 1
                self.die("exchange", self.rank == 1 and self.calls == 20)
                return exchange(*arguments, **options)

            dist.all_to_all_single = counted
            return found

        def walk(self, ask):
            self.fits += isinstance(ask, Fit)
            self.die("fit", self.rank == 0 and self.fits == 5)
            return super().walk(ask)

        def die(self, how, now):
            if now and not (folder / how).exists():
                (folder / how).touch()
                os.kill(os.getpid(), signal.SIGKILL)

    return Victim


def alike(found: tuple[dict, dict], expected: tuple[dict, dict]) -> None:
    """The same schedule; coefficients and dB to the rounding of floats."""
    (said, file), (other_said, other_file) = found, expected
    assert file["checkpoint"] == other_file["checkpoint"] and said["forwards"] == other_said["forwards"]
    (ours,), (theirs,) = file["presets"], other_file["presets"]
    assert {key: ours[key] for key in ("budget", "conditions", "computed")} == {
        key: theirs[key] for key in ("budget", "conditions", "computed")
    }
    for table in ("first", "later"):
        for own, other in zip(ours[table], theirs[table], strict=True):
            assert own == pytest.approx(other, rel=1e-2, abs=1e-3)
    for each, other in zip(said["budgets"], other_said["budgets"], strict=True):
        assert each["found"] == pytest.approx(other["found"], abs=0.01)
        assert each["fewer_steps"] == pytest.approx(other["fewer_steps"], abs=0.01)


def test_gangs_find_what_one_process_finds_though_ranks_are_lost(calibrated, cluster, tmp_path, monkeypatch):
    expected = calibrated("alone")
    assert (expected[0]["gang"], expected[0]["gang_hours"]) == (1, expected[0]["gpu_hours"])
    monkeypatch.setattr(walk_gang, "WalkActor", victim(tmp_path))
    found = calibrated("gang", "--address", cluster, "--gang", 2, "--device", "cpu")
    assert (tmp_path / "exchange").exists() and (tmp_path / "fit").exists()
    alike(found, expected)
    assert found[0]["gpu_hours"] == 2 * found[0]["gang_hours"] > expected[0]["gpu_hours"]


def test_ctrl_c_leaves_no_process_and_the_same_command_goes_on(checkpoint, tmp_path):
    """A Ray of its own."""
    walks = tmp_path / "walks"
    arguments = ["calibrate", checkpoint, *ASKED[:-1], "--work", walks, "--out", tmp_path / "out", "--gang", 2]
    line = [sys.executable, "-m", "flowcache.cli", *map(str, arguments)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(walks.glob("*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    begun = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 1 and "what was walked stays, and the same command goes on" in said, said
    assert len(begun) > 3 and not [pid for pid in begun if alive(pid)]
    assert not [*(tmp_path / "out").iterdir()] and not list(walks.glob("*.part"))


def parents() -> dict[int, int]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return found


def descendants(pid: int) -> set[int]:
    known, every = {pid}, parents()
    while more := {child for child, parent in every.items() if parent in known} - known:
        known |= more
    return known - {pid}


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
