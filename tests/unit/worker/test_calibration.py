"""Calibrating: exact walks are recorded once, corrections that do not help other prompts are not kept."""

import json
import shutil
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from unittest import mock

import pytest
import torch

from flowcache.bench.prompts import MOST as MOST_PROMPTS
from flowcache.bench.prompts import SEEDS
from flowcache.cli.bench import MOST
from flowcache.cli.calibrate import calibrate as command
from flowcache.cli.calibrated import cost, cost_line
from flowcache.errors import FlowcacheError, InputError
from flowcache.families import calibrations
from flowcache.families.registry import find, folder_digest, load_model
from flowcache.sampling.fitting import Example, fitted
from flowcache.sampling.multistep import AdamsBashforth
from flowcache.worker.asks import Result
from flowcache.worker.calibration import (
    FEWEST,
    STARTS,
    WORST,
    Calibration,
    Calibrator,
    FewerSteps,
    Outcome,
    Prompt,
    Race,
    Seen,
    recording,
    robust,
    seen,
    surely,
    works,
)
from flowcache.worker.journal import Journal
from flowcache.worker.walking import Here, Walking
from flowcache.worker.walks import PROBES, Walker
from flowcache.worker.windows import Windows, solvers_for
from tests.published_magi import write_magi

TEXTS = ("a red circle moving right on a blue background", "a white square growing on a black background")
PROMPTS = [Prompt(text, seed) for seed, text in enumerate(TEXTS)]
ALONE = {"device": "cpu", "gang": None, "gangs": None, "address": None}
TARGETS = {"tiny-skyreels": "off", "tiny-magi": "converged"}


@pytest.fixture(scope="module", params=TARGETS)
def model(request):
    """With windows of two chunks and a few steps."""
    torch.set_num_threads(1)
    made = load_model(request.param, texts=TEXTS)
    return replace(made, spec=replace(made.spec, steps=4, window=2 * made.spec.chunk, ar_step=2))


def calibrating(model, folder, schedules, target=None):
    windows = Windows(model.spec, target or TARGETS[model.spec.name])
    return Calibrator(Walker(windows, folder, Here(lambda: model)), schedules)


def test_walks_are_taken_once_and_what_is_made_is_the_same_again(model, tmp_path):
    found = calibrating(model, tmp_path, 4).calibrate(0.5, PROMPTS, PROMPTS)
    assert len(found.plain) == len(found.best) == 2
    with mock.patch.object(Walking, "answer", side_effect=AssertionError("walked again")):
        assert calibrating(model, tmp_path, 4).calibrate(0.5, PROMPTS, PROMPTS) == found


def test_what_is_found_fits_its_budget_and_is_never_worse_on_other_prompts(model, tmp_path):
    calibrator = calibrating(model, tmp_path, 4)
    with mock.patch.object(Calibrator, "closeness", autospec=True, side_effect=Calibrator.closeness) as closeness:
        found = calibrator.calibrate(0.6, PROMPTS, PROMPTS[1:])
    windows, asked = calibrator.windows, {call.args[3] for call in closeness.call_args_list} - {None}
    schedules = {made for made in asked if isinstance(made, Calibration)}
    assert len({made.computed for made in schedules}) > 1
    assert max(windows.forwards(made) for made in asked) <= windows.allowed(0.6)
    if found.preset in schedules:
        pytest.fail("what is kept says what residuals it shows")
    if isinstance(found.preset, Calibration):
        bare = replace(found.preset, first_seen=(), later_seen=(), predicted=None)
        assert bare in schedules and found.best > found.plain and found.preset.judges
    elif found.preset:
        assert found.preset in asked
    if found.preset:
        assert found.preset.conditions == windows.conditions()
    else:
        assert found.best <= found.plain and not found.corrected


@pytest.mark.parametrize("gain, kept", [(1.0, True), (0.0, False), (-1.0, False)])
def test_the_best_number_of_steps_is_measured(model, tmp_path, gain, kept):
    """Fewer than the most that fit, and by another solver where there is one; kept where other prompts say so, too."""

    calibrator = calibrating(model, tmp_path, 2, "off")
    usual, *others = calibrator.windows.runs(0.9, FEWEST)
    fewer = min(others, key=lambda made: (made.steps, made.solver))
    other = "adams-bashforth" if model.spec.name == "tiny-magi" else "official-start"
    assert (usual.solver, fewer.solver) == ("own", other)

    def closeness(self, prompts, budget, made, chunks=None):
        better = (gain if chunks is None else 1.0) * (made == fewer) if isinstance(made, FewerSteps) else 0.0
        return [20.0 + better] * len(prompts)

    with mock.patch.object(Calibrator, "closeness", closeness):
        found = calibrator.calibrate(0.9, PROMPTS, PROMPTS)
    assert fewer.steps < usual.steps and found.preset == (fewer if kept else None)
    assert found.plain == ((20.0 + gain,) * 2 if kept else (20.0, 20.0))


@pytest.mark.parametrize("target", ["off", "converged"])
def test_every_run_is_tried_by_all_solvers_and_with_the_fault_of_off_where_that_is_the_target(model, target):
    found = Windows(model.spec, target).runs(0.9, FEWEST)
    wanted = {"own", "adams-bashforth"} if model.spec.name == "tiny-magi" else {"own", "official-start"}
    wanted -= {"official-start"} if target == "converged" else set()
    by = {solver: [replace(run, solver="own") for run in found if run.solver == solver] for solver in wanted}
    assert {run.solver for run in found} == wanted and all({*own} == {*by["own"]} for own in by.values())


def test_a_solver_that_nobody_knows_is_tried_alone(model):
    plan = Windows(model.spec, "off").plan(0.9, None, 1)
    assert solvers_for(replace(plan, solver=AdamsBashforth((0.0, 1.0))), "off") == ("own",)


@pytest.mark.parametrize("gain, kept", [(1.0, True), (0.0, False), (-1.0, False)])
def test_what_is_not_surely_better_than_fewer_steps_is_not_kept(model, tmp_path, gain, kept):
    def closeness(self, prompts, budget, made, chunks=None):
        return [20.0 + (gain if made else 0.0)] * len(prompts)

    with mock.patch.object(Calibrator, "closeness", closeness):
        found = calibrating(model, tmp_path, 0).calibrate(0.6, PROMPTS, PROMPTS)
    assert (found.preset is not None) == kept


def test_what_is_kept_says_what_residuals_others_showed(model, tmp_path):
    """Nothing is walked again for it, but where an older version judged and kept none; then the same is found."""
    calibrator = calibrating(model, tmp_path, 4)
    bare = calibrator._bare(0.6, ((0, 2), (0, 2)))
    calibrator.closeness(PROMPTS[1:], 0.6, bare)
    with mock.patch.object(Result, "answer", side_effect=AssertionError("walked again")):
        found = calibrator.recorded(bare, PROMPTS[:1], PROMPTS[1:])
    assert replace(found, first_seen=(), later_seen=(), predicted=None) == bare and 0 < found.predicted
    (first,), (later,) = found.first_seen, found.later_seen
    assert first.largest == first.mean > 0 == first.std == later.std and later != first  # of one chunk each
    lines = [line for line in (tmp_path / "closeness.jsonl").read_text().split("\n") if "[[" not in line]
    (tmp_path / "closeness.jsonl").write_text("\n".join(lines))
    again = calibrating(model, tmp_path, 0)
    assert again.recorded(bare, [], PROMPTS[1:]) == replace(found, predicted=None)
    with mock.patch.object(Walking, "answer", side_effect=AssertionError("walked again")):
        assert again.recorded(found, [], PROMPTS[1:]) == replace(found, predicted=None)


def test_spread_over_chunks():
    assert seen([[1.0, 4.0], [3.0, 4.0]]) == (Seen(3.0, 2.0, 1.0), Seen(4.0, 4.0, 0.0)) and seen([]) == ()


def test_sure_means_more_than_chance_does():
    assert surely([1.0, 1.2, 0.9, 1.1]) and surely([0.5]) and not surely([0.0])
    assert not surely([9.0, 0.1, -0.2, 0.3])  # one prompt alone
    assert not surely([3.0, -1.0, -1.0, 3.1, -1.0])
    assert robust([20.0, 21.0, 22.0]) == pytest.approx(21.0)
    assert robust([20.0, 21.0, 200.0]) == pytest.approx(24.0) and robust([20.0, 21.0, 3.0]) == pytest.approx(17.0)


def test_what_half_of_the_prompts_call_hopeless_is_not_walked_further():
    asked = []

    def closeness(schedule, prompts):
        asked.extend((schedule, prompt) for prompt in prompts)
        return [schedule[-1] + prompt for prompt in prompts]

    race = Race([1, 2, 3, 4], closeness)
    assert race.value((0, 20)) == 22.5 and len(asked) == 4
    assert race.value((0, 18)) == float("-inf") and len(asked) == 6
    assert race.value((0, 19)) == 21.5 and race.value((0, 21)) == 23.5 and len(asked) == 14
    assert race.value((0, 19)) == float("-inf")  # the best is another one now


def test_a_line_that_a_kill_cut_off_is_judged_again(tmp_path):
    file, asked = tmp_path / "journal.jsonl", []

    def walk(values):
        def walked(missing):
            asked.extend(values[number] for number in missing)
            return [(number, values[number]) for number in reversed(missing)]

        return walked

    for _ in range(2):
        assert Journal(file).values([["a", 1.5], ["a", 2.5]], walk([1.5, 2.5])) == [1.5, 2.5]
    assert asked == [1.5, 2.5]
    file.write_text(file.read_text()[:-5])
    for _ in range(2):
        assert Journal(file).values([["a", 1.5], ["a", 2.5], ["a", 3.5]], walk([9.5, 2.5, 3.5])) == [9.5, 2.5, 3.5]
    assert asked == [1.5, 2.5, 9.5, 3.5]
    table = [[0.5], []]
    assert Journal(file).values([["b"]], lambda missing: [(0, table)]) == [table]
    file.write_text(file.read_text()[:-1])  # in a list, which ends as lines do
    assert Journal(file).values([["b"], ["a", 2.5]], lambda missing: [(0, 4.5)]) == [4.5, 2.5]


def test_what_is_no_value_is_walked_for_again(tmp_path):
    """Lines of nobody, and values that can't be any, beside those that are sound."""
    file = tmp_path / "journal.jsonl"
    assert Journal(file).values([["a"], ["b"]], lambda missing: [(0, 1.5), (1, [[2.5], []])]) == [1.5, [[2.5], []]]
    sound = file.read_bytes()
    for line in (
        b"5",
        b'{"a": 1}',
        b"[1]",
        b'["k", 1, 2]',
        b'[["k"], 1]',
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b'"ab"',
    ):
        file.write_bytes(sound + b"\n" + line)
        assert Journal(file).values([["a"], ["b"]], lambda missing: [(9, 9)]) == [1.5, [[2.5], []]]
    for value in ("NaN", "1e999", '"1.5"', "null", "true", "[NaN]", '{"a": 1}'):
        file.write_bytes(sound.replace(b"1.5", value.encode()))
        for _ in range(2):
            assert Journal(file).values([["a"]], lambda missing: [(0, 3.5)]) == [3.5]
    file.write_bytes(sound)
    assert Journal(file).values([["b"]], lambda missing: [(0, 3.5)], lambda value: isinstance(value, float)) == [3.5]


def test_a_walk_whose_file_is_damaged_is_walked_again(model, tmp_path):
    walker = calibrating(model, tmp_path, 4).walker
    (file,) = walker.record(PROMPTS[:1], 1)
    sound = file.read_bytes()
    for damaged in (b"", sound[: len(sound) // 2], bytes(1000)):
        file.write_bytes(damaged)
        (latents,) = walker.exact(PROMPTS[0], 1, model.spec.steps)
        assert latents.isfinite().all() and file.read_bytes() == sound
    assert [*tmp_path.iterdir()] == [file]


@pytest.fixture
def diverging(monkeypatch):
    """diverging(texts, made) -> windows of those prompts by the steps of a calibrated schedule, or all where `made` is
    None, come to nothing finite."""

    def diverging(texts, calibrated=True):
        window = Walking.window

        def spoilt(self, prompt, budget, made, chunks):
            found = window(self, prompt, budget, made, chunks)
            if prompt.text in texts and (made or not calibrated):
                found.latents.chunks = [chunk * float("inf") for chunk in found.latents.chunks]
            return found

        monkeypatch.setattr(Walking, "window", spoilt)

    return diverging


def test_a_schedule_that_diverges_counts_as_another_sample_and_shows_nothing(model, tmp_path, diverging):
    diverging(TEXTS[:1])
    calibrator = calibrating(model, tmp_path, 4)
    bare = calibrator._bare(0.6, ((0, 2), (0, 2)))
    assert calibrator.closeness(PROMPTS[:1], 0.6, bare) == [WORST]
    sound = calibrating(model, tmp_path, 0).recorded(bare, [], PROMPTS[1:])
    assert calibrating(model, tmp_path, 0).recorded(bare, [], PROMPTS) == sound and sound.judges
    assert not calibrating(model, tmp_path, 0).recorded(bare, [], PROMPTS[:1]).judges


def test_what_is_fitted_is_fitted_on_those_that_do_not_diverge(model, tmp_path, diverging):
    others = [Prompt(text, seed) for seed, text in enumerate(TEXTS[1:] * 3, 5)]
    bare = calibrating(model, tmp_path, 0)._bare(0.6, ((0, 2), (0, 2)))
    expected = calibrating(model, tmp_path / "one", 0)
    expected.walker.work.mkdir()
    fitted = expected._fitted(bare, others)
    diverging(TEXTS[:1])
    assert calibrating(model, tmp_path, 0)._fitted(bare, [PROMPTS[0], *others]) == fitted
    assert calibrating(model, tmp_path, 0)._fitted(bare, PROMPTS[:1]) == bare


def test_a_model_that_diverges_itself_is_told_with_the_prompt(model, tmp_path, diverging):
    diverging(TEXTS[:1], calibrated=False)
    with pytest.raises(FlowcacheError, match=f"the walk of '{TEXTS[0]}' .noise 0. failed: chunk 0 of the window has"):
        calibrating(model, tmp_path, 4).walker.walks(PROMPTS, 1)


def test_what_exact_walks_say(model, tmp_path):
    """An error before the last step is an error of the result; a walk's own latents are products with themselves."""
    found = calibrating(model, tmp_path, 9, "off").walker.walks(PROMPTS, 2)
    steps = model.spec.steps
    assert found.steps == steps and found.growth[-1] == 1 and (found.growth > 0).all()
    assert found.products[steps, steps] == pytest.approx(1) and found.time[0] == 0 < found.time[-1]
    assert found.branches == (2 if model.spec.family.startswith("skyreels") else 3)
    assert found.cost(tuple(range(steps))) < min(found.cost((0, other)) for other in range(1, steps))


def test_cost_is_said_before(model):
    """Those that are judged by are walked by two runs of fewer steps too, and twice by what was found."""
    windows = Windows(model.spec, "off")
    exact, half = windows.exact_work(2, 1), windows.most_work(2, 0.6)
    assert exact.forwards > half.forwards
    assert works(windows, 0, [0.6], 2, 0) == [(2, exact), (2, half)]
    assert works(windows, 0, [0.6], 0, 1) == [(1, exact), (4, half)]
    runs, one = len(windows.runs(0.6, FEWEST)), windows.exact_work(1, 1)
    searched = works(windows, 7, [0.6], 1, 0)
    assert searched == [(1, exact), (1, exact), (PROBES + 1, one), (2, half), (STARTS + runs, half)]
    assert windows.exact_work(2, 3).forwards > 2.5 * exact.forwards
    assert recording(windows, 0, [0.6], 2, 3) == [(3, half)]
    assert recording(windows, 7, [0.6], 2, 3) == [(2, exact), (PROBES + 1, one), (3, half)]
    assert works(windows, 1, [0.6], 1, 0) == works(
        windows, STARTS, [0.6], 1, 0
    )  # all that it is climbed from are walked


def test_no_schedule_within_a_budget_takes_more_than_was_said(model, tmp_path):
    """Where fewer steps leave a part of it, others take that too."""
    calibrator = calibrating(model, tmp_path, 0, "off")
    windows, steps, more = calibrator.windows, range(1, model.spec.steps), 0
    schedules = [(0, *rest) for count in range(len(steps) + 1) for rest in combinations(steps, count)]
    for budget in (0.4, 0.5, 0.8):
        bare = [calibrator._bare(budget, pair) for pair in product(schedules, repeat=2)]
        taken = max(found for found in map(windows.forwards, bare) if found <= windows.allowed(budget))
        assert taken <= windows.most_work(2, budget).forwards <= max(windows.allowed(budget) + 1, taken)
        more += taken > windows.budget_work(2, budget).forwards
    assert more


def test_the_cost_of_gangs_is_that_of_all_their_ranks(model):
    windows = Windows(model.spec, "off")
    taken = works(windows, 7, [0.6], 3, 3)
    one, four = (cost(windows, taken, 6, 100.0, ranks) for ranks in (1, 4))
    assert one["gang_hours"] == one["gpu_hours"] < four["gpu_hours"] == 4 * four["gang_hours"]
    assert one["forwards"] == four["forwards"] == sum(n * work.forwards for n, work in taken)
    assert f"at most: {one['gpu_hours']:.2g} GPU hours (100 TFLOP/s a GPU" in cost_line(one)
    assert f"at most: {four['gang_hours']:.2g} hours of a gang of 4, {four['gpu_hours']:.2g} GPU" in cost_line(four)
    assert "between ranks: assumed)" in cost_line(four) and "between ranks" not in cost_line(one)


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
    asked = {
        "model": "tiny-skyreels",
        "budgets": "0.5",
        "target": "off",
        "work": tmp_path,
        "prompts": None,
        "n": None,
        "tflops": None,
    }
    few = tmp_path / "few.txt"
    few.write_text("a red circle\n\n")
    for change, message in (
        ({"prompts": few}, "few.txt: holds 1 prompts; accepted: at least 6"),
        ({"prompts": tmp_path / "none"}, "none: can't be read"),
        ({"budgets": "0.5,2"}, "got '0.5,2'; accepted: numbers above 0, at most 1"),
        ({"target": "paper"}, "got 'paper'; accepted: 'off' or 'converged'"),
        ({"device": "auto"}, "--device: got 'auto'; accepted: cpu, cuda or one as cuda:1"),
        ({"gangs": 2, "device": "cuda:1"}, "--device: got 'cuda:1'; accepted for gangs: auto, cpu or cuda"),
        ({"address": "head"}, "--address: got 'head'; accepted: 'auto', or the head's host and port"),
        ({"gang": 9999}, "--gang: got 9999; accepted for tiny-skyreels at .*: 1 to "),
    ):
        with pytest.raises(InputError, match=message):
            command(**asked | {"to": tmp_path, "schedules": 0, "seed": 0} | ALONE | change)


@pytest.fixture
def small(model, monkeypatch):
    """What the command takes for the bundled one: at its own steps calibrating would take long."""
    monkeypatch.setattr("flowcache.families.registry.load_model", lambda *given, **said: model)
    monkeypatch.setattr("flowcache.families.registry.find", lambda name: model.spec)
    return model


def test_the_command_needs_no_prompts_and_writes_what_a_checkpoint_then_has(small, tmp_path, monkeypatch, capsys):
    """Nothing is walked. The other half of the prompts judges; all have noise that no bench has."""
    asked = []

    def outcome(self, budget, prompts, others):
        asked.append((prompts, others))
        at = self.windows.conditions()
        made = Calibration(budget, at, (0, 2), ((), ()), ((), ())) if budget > 0.55 else None
        made = FewerSteps(budget, at, 1, 1, "own") if budget == 0.55 else made
        return Outcome(budget, made, (5.0, 6.0), (6.0, 8.0))

    monkeypatch.setattr(Calibrator, "calibrate", outcome)
    said = {"target": "off", "to": tmp_path / "out", "work": tmp_path / "work", "schedules": 9, "seed": 3}
    command(small.spec.name, None, 8, "0.6,0.55,0.5", **said, tflops=None, **ALONE, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert written["checkpoint"] == folder_digest(Path(small.spec.path), without=calibrations.FILE)
    calibrated, steps, usual = written["presets"]
    assert calibrated["computed"] == [0, 2] and (steps["steps"], steps["lag"], steps["solver"]) == (1, 1, "own")
    (made,) = (each for each in calibrations.read(tmp_path / "out", written["checkpoint"]) if each.budget == 0.5)
    windows = Windows(small.spec, "off")
    assert usual == calibrations.document(made) and windows.plan(0.5, None, 2).rows == windows.plan(0.5, made, 2).rows
    kept, fewer, not_kept = printed["budgets"]
    assert (kept["steps"], fewer["computed"], fewer["steps"]) == (None, None, 1)
    assert kept["forwards"] <= kept["most_forwards"] and kept["gain"]["mean"] == [1.5, 1.0, 2.0]
    assert not_kept["computed"] is None and printed["forwards"] > 0 and printed["gpu_hours"] > 0
    (prompts, others), *_ = asked
    assert (len(prompts), len(others)) == (4, 4) and len({each.seed for each in (*prompts, *others)}) == 8
    assert min(each.seed for each in prompts) > MOST * SEEDS + MOST_PROMPTS
    command(small.spec.name, many(tmp_path), None, "0.6,0.55,0.5", **said, tflops=989.0, **ALONE, as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "GPU hours (989 TFLOP/s a GPU" in text
    assert "budget 0.55: a run of 1 steps with a lag of 1, " in text
    assert "budget 0.5: fewer steps stay; latents to the target 5.5 dB" in text
    assert "1.5 dB (1.0 to 2.0), median 1.5, better on 2 of 2 prompts" in text


def test_residuals_are_added_to_what_is_there(small, tmp_path, monkeypatch, capsys):
    """No budget is calibrated, and none of other settings or another target is touched."""
    at = Windows(small.spec, "off").conditions()
    old = [Calibration(budget, at, (0, 2), ((), ()), ((), ())) for budget in (0.7, 0.6)]
    old += [replace(old[1], conditions=replace(at, steps=9)), replace(old[1], target="converged")]
    digest, asked = folder_digest(Path(small.spec.path), without=calibrations.FILE), []
    said = {"target": "off", "to": tmp_path, "work": tmp_path / "work", "schedules": 9, "seed": 3, "residuals": True}
    said |= {"tflops": None, **ALONE, "as_json": True}
    with pytest.raises(InputError, match="has no budget that was fitted to off at the checkpoint's own settings"):
        command(small.spec.name, None, 6, "0.6", **said)
    calibrations.write(tmp_path, digest, old)

    def recorded(self, made, prompts, others):
        asked.append((made.budget, len(prompts), len(others)))
        return replace(made, first_seen=(Seen(0.2, 0.1, 0.0),), predicted=0.5)

    monkeypatch.setattr(Calibrator, "recorded", recorded)
    command(small.spec.name, None, 7, "0.6", **said)
    assert asked == [(0.7, 3, 4), (0.6, 3, 4)]
    kept = calibrations.read(tmp_path, digest)
    found = {(each.budget, each.conditions.steps, each.target): each.judges for each in kept}
    assert found == {(0.7, 4, "off"): True, (0.6, 4, "off"): True, (0.6, 9, "off"): False, (0.6, 4, "converged"): False}
    printed = json.loads(capsys.readouterr().out)
    assert printed["budgets"][1] == {"budget": 0.6, "predicted_error": 0.5} and printed["forwards"] > 0


def test_presets_of_other_budgets_stay_and_what_is_no_longer_better_goes(small, tmp_path, monkeypatch, capsys):
    at = Windows(small.spec, "off").conditions()
    old = [Calibration(budget, at, (0, 2), ((), ()), ((), ())) for budget in (0.7, 0.6)]
    elsewhere = replace(old[1], conditions=replace(at, steps=9))
    digest = folder_digest(Path(small.spec.path), without=calibrations.FILE)
    calibrations.write(tmp_path, digest, [*old, elsewhere])
    monkeypatch.setattr(Calibrator, "calibrate", lambda self, budget, *prompts: Outcome(budget, None, (5.0,), (4.0,)))
    command(small.spec.name, None, 6, "0.6", "off", tmp_path, tmp_path / "work", 9, 0, None, **ALONE, as_json=True)
    written = json.loads((tmp_path / "calibration.json").read_text())
    presets = [(each["budget"], each["conditions"]["steps"], "computed" in each) for each in written["presets"]]
    assert presets == [(0.7, 4, True), (0.6, 9, True), (0.6, 4, False)]
    calibrations.write(tmp_path, "another", old)
    with pytest.raises(InputError, match=f"calibration.json: checkpoint: is another's; accepted: {digest}"):
        command(small.spec.name, None, 6, "0.6", "off", tmp_path, tmp_path / "work", 9, 0, None, **ALONE, as_json=True)


def test_budgets_count_once_and_what_another_command_wrote_meanwhile_stays(small, tmp_path, monkeypatch, capsys):
    """Each of the two reads what is there before it begins, which takes hours."""
    at = Windows(small.spec, "off").conditions()
    digest, asked = folder_digest(Path(small.spec.path), without=calibrations.FILE), []

    def outcome(self, budget, *prompts):
        asked.append(budget)
        calibrations.write(tmp_path, digest, [Calibration(0.3, at, (0,), ((),), ((),))])
        return Outcome(budget, Calibration(budget, at, (0, 2), ((), ()), ((), ())), (5.0,), (6.0,))

    monkeypatch.setattr(Calibrator, "calibrate", outcome)
    command(small.spec.name, None, 6, "0.6,0.60", "off", tmp_path, tmp_path / "w", 9, 0, None, **ALONE, as_json=True)
    assert asked == [0.6] and [each.budget for each in calibrations.read(tmp_path, digest)] == [0.3, 0.6]


def test_folders_that_cannot_be_made_are_told_before_anything_is_walked(small, tmp_path, monkeypatch):
    def refused(self, *given, **said):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "mkdir", refused)
    for folders in ((tmp_path / "new", tmp_path), (tmp_path, tmp_path / "new")):
        with pytest.raises(InputError, match="can't be written .no such file or directory.; accepted: a folder"):
            command(small.spec.name, None, 6, "0.6", "off", *folders, 9, 0, None, **ALONE)


def test_a_calibration_lies_where_it_is_found_again(tmp_path, monkeypatch, capsys):
    """Beside a folder's checkpoint; that of one whose parts a config names elsewhere, and never beside another one."""
    config, other = write_magi(tmp_path / "model"), shutil.copytree(find("tiny-skyreels").path, tmp_path / "other")

    def outcome(self, budget, *prompts):
        return Outcome(budget, Calibration(budget, self.windows.conditions(), (0,), ((),), ((),)), (5.0,), (6.0,))

    monkeypatch.setattr(Calibrator, "calibrate", outcome)
    asked = 6, "0.6", "off"
    for model in (config, config.parent):
        for to, why in ((None, f"--out: is needed: {config} only says where its parts lie"),
                        (config.parent, f"--out: {config.parent} holds a checkpoint"),
                        (other, f"--out: {other} holds a checkpoint")):  # fmt: skip
            with pytest.raises(InputError, match=f"{why}; accepted: a folder without one"):
                command(str(model), None, *asked, to, tmp_path / "work", 9, 0, None, **ALONE)
    for to, why in ((config, "is a file"), ("n" * 300, "can't be written .file name too long.")):
        with pytest.raises(InputError, match=f"--out: '{to}' {why}; accepted: a folder on this machine"):
            command(str(other), None, *asked, Path(to), tmp_path / "work", 9, 0, None, **ALONE)
    own, link, hub = tmp_path / "own", tmp_path / "link", tmp_path / "models--ORG--NAME"
    link.symlink_to(other)
    cached = shutil.copytree(other, hub / "snapshots" / "abc")
    for model, to, folder in (
        (other, link, other),
        (hub, hub, cached),
    ):  # the checkpoint's own folder, not as it is named
        command(str(model), None, *asked, to, tmp_path / "work", 9, 0, None, **ALONE)
        made = json.loads((folder / calibrations.FILE).read_text())
        assert "model" not in made and any(each.get("computed") == [0] for each in made["presets"])
    for model in (config.parent, own):  # again, by the folder of its calibration
        command(str(model), None, *asked, own if model != own else None, tmp_path / "work", 9, 0, None, **ALONE)
        found, plain = find(str(own)), find(str(config))
        assert (found.path, found.name, len(found.calibrations)) == (plain.path, plain.name, 1)
        assert found.digest != plain.digest and plain.calibrations == ()


def test_a_damaged_calibration_beside_the_checkpoint_stops_no_walk_by_another_folder(tmp_path, monkeypatch):
    """Where nobody may write, nobody can mend it."""
    checkpoint, own, found = shutil.copytree(find("tiny-skyreels").path, tmp_path / "model"), tmp_path / "own", []
    own.mkdir()
    calibrations.write(own, folder_digest(checkpoint, without=calibrations.FILE), (), str(checkpoint))
    (checkpoint / calibrations.FILE).write_text("{")
    folder_digest.cache_clear()

    def outcome(self, budget, *prompts):
        found.append(self.walker.by._walking.model.spec.path)
        return Outcome(budget, None, (5.0,), (4.0,))

    monkeypatch.setattr(Calibrator, "calibrate", outcome)
    command(str(own), None, 6, "0.6", "off", None, tmp_path / "work", 9, 0, None, **ALONE, as_json=True)
    assert found == [str(checkpoint)]
