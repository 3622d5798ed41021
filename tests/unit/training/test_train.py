"""The loop: what it keeps, that it resumes to the same bits, and that several processes give what one gives."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from flowcache.bench.shapes import World, vocabulary
from flowcache.families.codecs import PatchCodec, load_codec
from flowcache.families.registry import find, load_model
from training.codec import CHANNELS, save_codec
from training.export import export
from training.families import FAMILIES
from training.loop import CHECKPOINT, LOG
from training.sample import load_average
from training.task import Length
from training.text import build_tokenizer, encode_batch
from training.train import Options, train

LONG = {"skyreels": "2", "magi": "2", "refiner": "clip"}


def plan_of(folder: Path, task: str, steps: int = 4, **more) -> Path:
    """Two short stages of the task: single frames, then windows too."""
    short = "clip" if task == "refiner" else "image"
    stages = [{"until": 2, "batch": {short: 2}}, {"until": steps, "batch": {short: 2} | {LONG[task]: 2}}]
    plan = {"task": task, "stages": stages, "rates": [[0, 2e-3]], "warmup": 1, "spread": 10}
    path = folder / f"{task}-{steps}.yaml"
    path.write_text(yaml.safe_dump(plan | more))
    return path


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec") / "vae"
    save_codec(PatchCodec(CHANNELS), folder)
    return folder


def state_of(folder: Path) -> dict:
    return torch.load(folder / CHECKPOINT, weights_only=True)


def leaves(state) -> list:
    """All that a checkpoint holds but times."""
    if isinstance(state, dict):
        return [
            leaf
            for key, value in sorted(state.items(), key=str)
            if key not in ("spent", "plan")
            for leaf in leaves(value)
        ]
    return [leaf for value in state for leaf in leaves(value)] if isinstance(state, list) else [state]


def same(one: dict, other: dict) -> bool:
    pairs = list(zip(leaves(one), leaves(other), strict=True))
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


@pytest.mark.long
@pytest.mark.parametrize("task", ["skyreels", pytest.param("magi", marks=pytest.mark.slow), "refiner"])
def test_resumes_to_the_same_bits(task, tmp_path, codec):
    """Stopped after each step, and in one go; a plan whose later stages changed goes on too."""
    plan = plan_of(tmp_path, task)
    train(Options(plan, tmp_path / "whole", codec=codec))
    for step in (1, 2, 3, 4):
        train(Options(plan, tmp_path / "parts", codec=codec, minutes=-1))
        assert state_of(tmp_path / "parts")["step"] == step
    whole = state_of(tmp_path / "whole")
    assert same(whole, state_of(tmp_path / "parts"))
    train(Options(plan, tmp_path / "whole", codec=codec))  # nothing is left to do
    assert same(whole, state_of(tmp_path / "whole"))
    train(Options(plan_of(tmp_path, task, steps=5), tmp_path / "whole", codec=codec))
    later = state_of(tmp_path / "whole")
    assert later["step"] == 5 and not same(whole, later)
    assert sum("plan" in line for line in log_of(tmp_path / "whole")) == 3


@pytest.mark.long
@pytest.mark.parametrize("task", ["skyreels", pytest.param("magi", marks=pytest.mark.slow)])
def test_two_processes_give_what_one_gives(task, tmp_path, codec):
    plan = plan_of(tmp_path, task, precision="float32")
    for processes in (1, 2):
        train(Options(plan, tmp_path / str(processes), codec=codec, processes=processes))
    one, two = (state_of(tmp_path / str(processes)) for processes in (1, 2))
    assert one["seen"] == two["seen"] == {"image": 8, LONG[task]: 4}
    apart = [(a - two["model"][name]).abs().max().item() for name, a in one["model"].items()]
    first, second = (next(line["loss"] for line in log_of(tmp_path / n) if "loss" in line) for n in ("1", "2"))
    assert first == pytest.approx(second, abs=2e-3)
    assert max(apart) < 2e-3 and sum(apart) / len(apart) < 2e-4  # of steps that add up to 8e-3


@pytest.mark.long
def test_a_kill_loses_nothing_that_was_saved(tmp_path, codec):
    """Both processes end, and the run goes on to the bits of one that was never killed."""
    plan = plan_of(tmp_path, "skyreels", steps=40, keep=[3])
    run = [sys.executable, "-m", "training.train", "--plan", plan, "--out", tmp_path / "killed", "--codec", codec]
    process = subprocess.Popen([*run, "--processes", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = tmp_path / "killed" / "step-00003.pt"
    end = time.monotonic() + 120
    while not kept.exists() and time.monotonic() < end:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert children and state_of(tmp_path / "killed")["step"] == 3
    while any(map(alive, children)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, children))
    train(Options(plan, tmp_path / "killed", codec=codec, processes=2, minutes=-1))
    assert state_of(tmp_path / "killed")["step"] == 4


def alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("family", ["skyreels", pytest.param("magi", marks=pytest.mark.slow)])
def test_every_parameter_learns_and_the_log_tells(family, tmp_path, codec):
    rows = {"until": 14, "batch": {"image": 4, "2": 2}}
    train(Options(plan_of(tmp_path, family, stages=[rows], probe=7), tmp_path / "run", codec=codec))
    state, trained = state_of(tmp_path / "run"), load_average(tmp_path / "run")
    torch.manual_seed(0)
    for name, initial in FAMILIES[family].build(len(build_tokenizer(vocabulary()))).state_dict().items():
        assert not torch.equal(state["model"][name], initial), name
    assert trained.step == 14 and trained.seen == {"image": 56, "2": 28}
    assert load_codec(tmp_path / "run" / "vae").causal == FAMILIES[family].causal
    learned = [line["learned"] for line in log_of(tmp_path / "run") if "learned" in line]
    assert len(learned) == 2
    assert learned[1]["loss image 0.8"] < learned[0]["loss image 0.8"]
    assert {"kind+ image 0.8", "kind+ 1 0.9", "motion+ 1 0.9"} < {*learned[0]}
    prompts = ["a red circle growing on blue", "a blue square moving left on white"]
    for length in (Length(1, 1), FAMILIES[family].lengths["2"]):
        latents = trained.family.preview(trained.model, trained.tokenizer, prompts, length, steps=8)
        assert latents.shape[:3] == (2, CHANNELS, length.frames) and latents.isfinite().all()


def test_the_refiner_learns(tmp_path):
    bundled = load_codec(f"{find('tiny-skyreels').path}/vae")
    bare = PatchCodec(CHANNELS)
    bare.load_state_dict({name: value for name, value in bundled.state_dict().items() if "refiner" not in name})
    save_codec(bare, tmp_path / "vae")
    stages = [{"until": 40, "batch": {"clip": 2}}]
    plan = plan_of(tmp_path, "refiner", stages=stages, probe=10, ema=0, precision="float32")
    train(Options(plan, tmp_path / "run", codec=tmp_path / "vae"))
    learned = [line["learned"] for line in log_of(tmp_path / "run") if "learned" in line]
    assert learned[-1]["dB 0.3"] > learned[0]["dB 0.3"] + 0.2
    refined = load_codec(tmp_path / "run" / "codec")
    assert torch.equal(refined.basis, load_codec(tmp_path / "vae").basis) and refined.hidden


@pytest.mark.parametrize(("family", "name"), [("skyreels", "tiny-skyreels"), ("magi", "tiny-magi")])
def test_a_run_goes_on_from_an_exported_checkpoint(family, name, tmp_path):
    loaded, found = load_model(name), FAMILIES[family]
    taken = found.build(len(build_tokenizer(vocabulary())))
    found.take_up(taken, Path(loaded.spec.path))
    wanted = loaded.transformer.state_dict()
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in taken.transformer.state_dict().items())
    words = loaded.text.encode("a red circle growing on blue")
    tokenizer = build_tokenizer(vocabulary())
    encoded, there = encode_batch(taken.text_encoder.eval(), tokenizer, ["a red circle growing on blue"], 16)
    assert torch.allclose(encoded[there], words[0, : there.sum()], atol=1e-5)


@pytest.mark.parametrize("family", ["skyreels", "magi"])
def test_onwards_and_out_again(family, tmp_path):
    """From a bundled model, a step, and exported: its vocabulary is what the plan shows less what came out wrong."""
    folder = Path(find(f"tiny-{family}").path)
    plan = plan_of(tmp_path, family, kinds=["circle", "star"], motions=["left", "bouncing", "still"])
    train(Options(plan, tmp_path / "run", start=folder, begin=3))
    state = state_of(tmp_path / "run")
    assert (state["step"], state["begun"], state["seen"]) == (4, 3, {"image": 2, "2": 2})
    first = next(line["loss"]["image"] for line in log_of(tmp_path / "run") if "loss" in line)
    assert math.isfinite(first) and first < 1.5  # of 2 and more from nothing
    export(tmp_path / "run", folder / "vae", tmp_path / "to", without=["star", "bouncing"])
    model = load_model(str(tmp_path / "to"))
    assert list(model.spec.vocabulary) == vocabulary(World(("circle",), ("left", "still")))
