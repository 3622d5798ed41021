"""Calibrating: exact walks are recorded once, corrections that do not help other prompts are not kept."""

import json
from dataclasses import replace
from unittest import mock

import pytest
import torch

from flowcache.cli.calibrate import calibrate as command
from flowcache.errors import InputError
from flowcache.families.registry import find, load_model
from flowcache.sampling.fitting import Example, fitted
from flowcache.worker import calibration, walks
from flowcache.worker.calibration import Calibrator, Prompt

TEXTS = ("a red circle moving right on a blue background", "a white square growing on a black background")
PROMPTS = [Prompt(text, seed) for seed, text in enumerate(TEXTS)]
TARGETS = {"tiny-skyreels": "off", "tiny-magi": "converged"}


@pytest.fixture(scope="module", params=TARGETS)
def model(request):
    """With windows of two chunks and a few steps."""
    torch.set_num_threads(1)
    made = load_model(request.param, texts=TEXTS)
    return replace(made, spec=replace(made.spec, steps=4, window=2 * made.spec.chunk, ar_step=2))


def test_walks_are_recorded_once_and_what_is_made_is_the_same_again(model, tmp_path):
    target = TARGETS[model.spec.name]
    calibrator = Calibrator(model, target, tmp_path, schedules=0)
    found = calibrator.calibrate(0.5, PROMPTS, PROMPTS[1:])
    made = found.calibration
    assert made.conditions == calibrator.walker.conditions() and made.computed == (0, 2)
    assert len(made.first) == len(made.later) == 2 and len(found.plain) == len(found.best) == 1
    assert found.corrected == (found.best > found.plain) == any((*made.first, *made.later))
    with mock.patch.object(walks, "denoise", side_effect=AssertionError("recorded again")):
        assert Calibrator(model, target, tmp_path, schedules=0).calibrate(0.5, PROMPTS, PROMPTS[1:]) == found


def test_a_schedule_that_is_found_is_never_worse_on_other_prompts(model, tmp_path):
    calibrator = Calibrator(model, TARGETS[model.spec.name], tmp_path, schedules=4)
    asked = []
    with mock.patch.object(Calibrator, "closeness", autospec=True, side_effect=Calibrator.closeness) as closeness:
        found = calibrator.calibrate(0.5, PROMPTS, PROMPTS[1:])
        asked = {call.args[2].computed for call in closeness.call_args_list}
    assert {(0, 2)} <= asked <= {(0, 1), (0, 2), (0, 3)} and len(asked) > 1
    assert found.best >= found.plain and found.calibration.computed in asked


def test_what_exact_walks_say(model, tmp_path):
    """An error before the last step is an error of the result; a walk's own latents are products with themselves."""
    found = Calibrator(model, "off", tmp_path).walker.walks(PROMPTS, 2)
    steps = model.spec.steps
    assert found.steps == steps and found.growth[-1] == 1 and (found.growth > 0).all()
    assert found.products[steps, steps] == pytest.approx(1) and found.time[0] == 0 < found.time[-1]
    assert found.branches == (2 if model.spec.family.startswith("skyreels") else 3)
    assert found.cost(tuple(range(steps))) < min(found.cost((0, other)) for other in range(1, steps))


def test_cost_is_said_before(model, tmp_path):
    """Those that are judged by are walked twice at each budget."""
    calibrator = Calibrator(model, "off", tmp_path, schedules=0)
    exact, half = (calibrator.walker.forwards(2, budget) for budget in (1.0, 0.5))
    assert calibrator.forwards([0.5], 2, 0) == 2 * (exact + half)
    assert calibrator.forwards([0.5], 0, 1) == exact + 2 * half
    one = calibrator.walker.forwards(1, 1.0)
    assert replace(calibrator, schedules=7).forwards([0.5], 1, 0) == 2 * exact + 11 * one + 2 * half + 7 * half


def example(seed, share):
    """Of which two features explain so much."""
    known = torch.randn(2, 50, generator=torch.Generator().manual_seed(seed))
    noise = torch.randn(50, generator=torch.Generator().manual_seed(100 + seed))
    return Example.of(share * (known[0] - 0.5 * known[1]) + (1 - share) * noise, list(known))


def test_what_helps_no_other_prompt_is_not_fitted():
    assert fitted([example(seed, 0.0) for seed in range(6)]) == ()
    assert fitted([example(seed, 1.0) for seed in range(6)]) == pytest.approx((1.0, -0.5), abs=1e-4)
    assert fitted([example(0, 1.0)]) == ()  # with one prompt nothing can be left out
    astray = Example.of(1e3 * torch.ones(50), list(torch.randn(2, 50, generator=torch.Generator().manual_seed(9))))
    assert fitted([*(example(seed, 1.0) for seed in range(6)), astray]) == pytest.approx((1.0, -0.5), abs=0.2)


def many(folder):
    file = folder / "prompts.txt"
    file.write_text("\n".join(TEXTS * 3))
    return file


def test_the_command_says_what_it_needs(tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("a red circle\n\n")
    asked = {"model": "tiny-skyreels", "budgets": "0.5", "target": "off", "work": tmp_path, "prompts": few}
    for change, message in (
        ({}, "few.txt: holds 1 prompts; accepted: at least 6"),
        ({"prompts": tmp_path / "none"}, "none: can't be read"),
        ({"budgets": "0.5,2"}, "got '0.5,2'; accepted: numbers above 0, at most 1"),
        ({"prompts": many(tmp_path), "target": "paper"}, "got 'paper'; accepted: 'off' or 'converged'"),
    ):
        with pytest.raises(InputError, match=message):
            command(**asked | {"to": tmp_path, "schedules": 0, "seed": 0, "device": "cpu"} | change)


def test_the_command_writes_what_a_checkpoint_then_has(model, tmp_path, monkeypatch, capsys):
    """At its own steps that would take long: the model is the small one, and nothing is walked."""
    nothing = Calibrator(model, "off", tmp_path).walker.conditions()
    plain = calibration.Calibration(0.5, nothing, (0, 2), ((), ()), ((), ()))
    outcome = calibration.Outcome(plain, (5.0, 6.0), (5.0, 6.0))
    monkeypatch.setattr("flowcache.families.registry.load_model", lambda *given, **said: model)
    monkeypatch.setattr(Calibrator, "calibrate", lambda self, budget, prompts, others: outcome)
    command(model.spec.name, many(tmp_path), "0.5", "off", tmp_path / "out", tmp_path / "work", 9, 0, "cpu", True)
    said = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert written["checkpoint"] == find(model.spec.name).digest
    assert [(each["budget"], each["computed"]) for each in written["presets"]] == [(0.5, [0, 2])]
    assert said["budgets"][0] | {"budget": 0.5, "corrected": False} == said["budgets"][0] and said["forwards"] > 0
