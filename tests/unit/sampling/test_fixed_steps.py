"""A budget: fewer steps where nothing is fitted, exact where the flow is linear, and its forwards are known before."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowcache.cache.fixed_steps import Calibration, FewerSteps, FixedSteps, Seen
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.errors import InputError
from flowcache.families import calibrations
from flowcache.families.registry import find, folder_digest, folder_of
from flowcache.families.settings import resolve_policy
from flowcache.inputs.schema import Policy as Written
from flowcache.sampling.budget import allowed, by_solver, count, steps_within
from flowcache.sampling.calibrated import Calibrated
from flowcache.sampling.dry_run import at_least, at_most, dry_run
from flowcache.sampling.fitting import Example, solved
from flowcache.sampling.multistep import AdamsBashforth, Multistep
from flowcache.sampling.planning import plan_for
from flowcache.sampling.proposal import even_steps
from flowcache.sampling.solver import Euler, UniPC, sigmas
from flowcache.sampling.thinned import thinned
from tests.unit.sampling.small import EXACT, FAMILIES, MAGI, OFF, SKYREELS, policy, run, small_magi, small_model

BY = [("skyreels", "own"), ("skyreels", "official-start"), ("magi", "own"), ("magi", "adams-bashforth")]
TOLD = {"adams-bashforth": "Adams-Bashforth", "official-start": "official start"}


@pytest.fixture(scope="module")
def models():
    return {"skyreels": small_model(), "magi": small_magi()}


@pytest.mark.parametrize("given", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_calibration_it_is_a_run_of_fewer_steps(models, family, given):
    """The most that the budget allows a whole window, however much of one is given; chunks behind one another alike."""
    settings, fewer = FAMILIES[family]
    budget = (count(plan_for(fewer, 6, EXACT)) + 0.5) / count(plan_for(settings, 6, OFF[family]))
    latents, chunks, forwards = run(models[family], settings, policy(budget, off=OFF[family]), given)
    expected, _, count_of_fewer = run(models[family], fewer, EXACT, given)
    assert torch.equal(latents, expected)
    assert forwards == count_of_fewer and {(chunk.decisions[1], chunk.reused) for chunk in chunks} == {("1111", 0)}


@pytest.mark.parametrize("given", [0, 2])
@pytest.mark.parametrize("family, solver", BY)
def test_a_calibration_may_say_how_many_steps_are_best(models, family, solver, given):
    """Not the most that the budget allows, and perhaps by another solver."""
    settings, fewer = FAMILIES[family]
    found = FewerSteps(0.9, settings.plan(6, EXACT).conditions, 4, 2, solver)
    latents, chunks, forwards = run(models[family], settings, policy(0.9, found, off=OFF[family]), given)
    expected, _, count = run(models[family], by_solver(fewer, settings, solver), EXACT, given)
    assert torch.equal(latents, expected) and forwards == count and {chunk.reused for chunk in chunks} == {0}
    told = plan_for(settings, 6, policy(0.9, found, off=OFF[family])).told
    assert told.startswith("4 of 8 steps") and told.endswith(", as calibrated")
    assert [name for name, word in TOLD.items() if word in told] == [solver] * (solver != "own")
    elsewhere = policy(0.9, replace(found, conditions=replace(found.conditions, steps=9)), off=OFF[family])
    assert plan_for(settings, 6, elsewhere).told.endswith(", not calibrated")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("given", [0, 2])
def test_steps_in_step_with_the_lag_are_fewer_steps_too(models, family, given):
    """Every second step of 8 is 4 steps: the same times, the same K/V of neighbours, the same result."""
    settings, fewer = FAMILIES[family]
    made = policy(0.6, calibration(settings, ((),) * 4))
    latents, chunks, forwards = run(models[family], settings, made, given)
    expected, _, count = run(models[family], fewer, EXACT, given)
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)
    assert forwards == count and {chunk.decisions[1] for chunk in chunks} == {"10101010"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [1.0, 0.7, 0.3, 0.01])
def test_forwards_stay_within_the_budget_and_are_known_before(models, family, budget):
    """Of a whole window of `off`: one step more would be too many, unless it is one or all already."""
    settings, made = FAMILIES[family][0], policy(budget, off=OFF[family])
    _, chunks, forwards = run(models[family], settings, made)
    bounds = {dry_run(settings, (6, 4, 4), (1, 1, 1), bound(made)) for bound in (at_most, at_least)}
    assert {done.forwards for done in bounds} == {forwards}
    steps, most = steps_within(settings, made, 6), allowed(settings, made, 6)
    assert most == budget * count(plan_for(settings, 6, OFF[family]))
    assert forwards <= most or steps == 1
    assert steps == settings.steps or count(plan_for(settings.fewer(steps + 1), 6, EXACT)) > most
    assert {len(chunk.decisions[1]) for chunk in chunks} == {steps} and (budget > 0.01 or steps == 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [1.0, 0.7, 0.35])
def test_what_a_calibration_spares_is_counted(models, family, budget):
    """What is computed and spared are the forwards of the exact run's steps."""
    settings, _ = FAMILIES[family]
    computed = even_steps(8, int(8 * budget))
    made = policy(budget, calibration(settings, ((),) * len(computed), budget, computed))
    _, chunks, forwards = run(models[family], settings, made)
    _, exact, every = run(models[family], settings, EXACT)
    assert [chunk.computed + chunk.reused for chunk in chunks] == [chunk.computed for chunk in exact]
    assert (forwards < every) == (budget < 1)
    assert all(mark == "01"[step in computed] for step, mark in enumerate(chunks[-1].decisions[1]))
    assert 0 < sum(chunk.computed for chunk in chunks) < forwards and sum(chunk.seconds for chunk in chunks) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_window_decides_for_its_parts(family):
    """Segments of one video take the same steps, however long their windows are."""
    settings, made = replace(FAMILIES[family][0], window=8), policy(0.4, off=OFF[family])
    (steps,) = {plan_for(settings, frames, made, given).steps for frames, given in ((2, 0), (6, 2), (8, 3), (14, 0))}
    assert steps == steps_within(replace(settings, window=0), made, 8)


def calibration(settings, coefficients, budget=0.6, computed=(0, 2, 4, 6), **conditions):
    """With coefficients for a window's first chunk; no correction for the later ones."""
    at = replace(settings.plan(6, EXACT).conditions, **conditions)
    return Calibration(budget, at, computed, coefficients, ((),) * len(computed))


@pytest.mark.parametrize("family", FAMILIES)
def test_coefficients_hold_for_their_own_conditions_alone(models, family):
    settings, _ = FAMILIES[family]
    plain = run(models[family], FAMILIES[family][1], EXACT)[0]
    counts = [len(own) for own in features_of(settings, policy(0.6, calibration(settings, ((),) * 4)))]
    nothing, halves = ((),) * 4, tuple((0.01,) * count for count in counts)
    empty = policy(0.6, calibration(settings, nothing))
    torch.testing.assert_close(run(models[family], settings, empty)[0], plain, atol=1e-4, rtol=1e-4)
    bent = run(models[family], settings, policy(0.6, calibration(settings, halves)))[0]
    assert (bent - plain).abs().amax((0, 2, 3))[:2].min() > 1e-3  # the first chunk itself, the others by its K/V alone
    for other in ({"steps": 9}, {"shift": 2.0}, {"guidance": 1.4}, {"lag": 3}, {"chunk": 3}):
        elsewhere = replace(calibration(settings, halves), conditions=calibration(settings, halves, **other).conditions)
        plan = plan_for(settings, 6, policy(0.6, elsewhere))
        assert plan.told.endswith("not calibrated") and not isinstance(plan.solver, Calibrated)
    calibrated = {
        budget: not plan_for(settings, 6, policy(budget, calibration(settings, halves))).told.endswith("not calibrated")
        for budget in (0.4, 0.6, 0.65, 0.9, 1.0)
    }  # that of the next smaller budget too, but not where far more steps fit
    assert calibrated == {0.4: False, 0.6: True, 0.65: True, 0.9: False, 1.0: False}
    wrong = policy(0.6, calibration(settings, ((), (0.1,), (), ())))
    with pytest.raises(ValueError, match=r"step 2 has 1 coefficients; accepted: \d"):
        run(models[family], settings, wrong)


def test_each_target_has_presets_of_its_own():
    """Where a row names none those to `off`, else those to the converged walk; never the others of a row that does."""
    nothing = ((),) * 4
    near, far = calibration(SKYREELS, nothing), replace(calibration(SKYREELS, nothing, 0.62), target="converged")
    taken = {}
    for target in (None, "off", "converged"):
        for name, known in {"both": (near, far), "off": (near,), "converged": (far,)}.items():
            made = policy(0.65, *known)
            made = replace(made, steps=replace(made.steps, target=target))
            plan = plan_for(SKYREELS, 6, made)
            taken[target, name] = plan.calibration.target if plan.calibration else plan.told.rpartition(", ")[2]
    assert taken == {
        (None, "both"): "off", (None, "off"): "off", (None, "converged"): "converged",
        ("off", "both"): "off", ("off", "off"): "off", ("off", "converged"): "not calibrated",
        ("converged", "both"): "converged", ("converged", "off"): "not calibrated",
        ("converged", "converged"): "converged",
    }  # fmt: skip
    assert plan_for(SKYREELS, 6, policy(0.65, far)).told.endswith("corrected, calibrated to the converged walk")
    assert FixedSteps(0.5, (near, replace(near, budget=0.9), far)).larger(replace(near, budget=0.5)) == (0.6, 0.9)


def test_the_length_of_a_window_decides_which_calibration_its_budget_allows():
    """Of a shorter one every step is a larger share of `off`, which forwards finished chunks anew."""
    made = [calibration(SKYREELS, ((),) * n, n / 8, even_steps(8, n)) for n in (2, 4, 6)]
    taken = {}
    for chunks in (2, 3, 5):
        settings = replace(SKYREELS, window=2 * chunks)
        for budget in (0.2, 0.6):
            chosen = policy(budget, *made, off=OFF["skyreels"])
            plan = plan_for(settings, 2 * chunks, chosen)
            assert count(plan) <= allowed(settings, chosen, 2 * chunks)
            assert plan_for(settings, 2, chosen).computed == plan.computed  # whole windows decide for their parts
            taken[chunks, budget] = len(plan.computed)
    assert [taken[chunks, 0.2] for chunks in (2, 3, 5)] == [0, 0, 2]  # 0: fewer steps, where nothing fits
    assert [taken[chunks, 0.6] for chunks in (2, 3, 5)] == [4, 6, 0]  # or where every step does


def features_of(settings, policy):
    """Of each computed step of a chunk."""
    plan = plan_for(settings, 6, policy)
    state, found = plan.solver.start, []
    for number, step in enumerate(plan.computed):
        branches = {f.branch for row in plan.rows for f in row.forwards if f.step == step} - {
            branch for at, branch in plan.weightless if at == step
        }
        shape = torch.zeros(len(branches), 4, 2, 4, 4)
        _, known, state = plan.solver.uncorrected(number, shape, shape[0], state, None)
        found.append(known)
    return found


LEVELS = sigmas(12, 3.0)
SOLVERS = {"euler": Euler(tuple(1 - level for level in LEVELS.tolist())), "unipc": UniPC(LEVELS)}


@pytest.mark.parametrize("name", SOLVERS)
def test_a_linear_flow_is_followed_exactly(name):
    """Fitted on some starts, step by step from where it has come itself: others arrive where the fine walk arrives."""
    computed, torch_seed = even_steps(12, 4), torch.Generator().manual_seed(0)
    turn = torch.tensor([[0.3, -1.0], [1.0, 0.3]])

    def velocity(x, step):
        return (turn @ x) * float(1 + LEVELS[step])

    def fine(x):
        found, state, solver = [x], SOLVERS[name].start, SOLVERS[name]
        for step in range(12):
            x, state = solver.step(step, velocity(x, step), x, state)
            found.append(x)
        return found

    starts = torch.randn(6, 2, 5, generator=torch_seed)
    targets = [fine(x) for x in starts]
    base, coefficients = SOLVERS[name].over(computed), []
    walk = Calibrated(base, lambda step, found: found[0], computed, ())
    under_way = [(x, walk.start) for x in starts]
    for number, step in enumerate(computed):
        to = (*computed, 12)[number + 1]
        tried = [walk.uncorrected(number, velocity(x, step)[None], x, state, None) for x, state in under_way]
        residuals = [target[to] - result for target, (result, _, _) in zip(targets, tried, strict=True)]
        examples = [Example.of(residual, each[1]) for residual, each in zip(residuals, tried, strict=True)]
        coefficients.append(tuple(solved(examples, 1e-12).tolist()))
        own = replace(walk, coefficients=((),) * number + (coefficients[-1],))
        under_way = [own.step(number, velocity(x, step)[None], x, state, None) for x, state in under_way]
    made, plain = replace(walk, coefficients=tuple(coefficients)), replace(walk, coefficients=((),) * len(computed))
    fresh, errors = torch.randn(2, 5, generator=torch_seed), []
    for solver in (made, plain):
        x, state = fresh, solver.start
        for number, step in enumerate(computed):
            x, state = solver.step(number, velocity(x, step)[None], x, state, None)
        errors.append((x - fine(fresh)[-1]).abs().max().item())
    assert errors[0] < 1e-4 < 1e-2 < errors[1]


def test_what_does_not_go_together():
    for fields in ({"reuse": Reuse(0.1, 1, (1.0, 0.0)), "kv_update": "refresh"}, {}):
        with pytest.raises(ValueError, match="a fixed schedule reuses nothing"):
            Policy("x", steps=FixedSteps(0.5), **fields)
    bare = replace(SKYREELS.plan(6, EXACT), solver=AdamsBashforth((0.0, 1.0)))
    with pytest.raises(ValueError, match="AdamsBashforth takes every step; accepted: a policy without a budget"):
        thinned(bare, calibration(SKYREELS, ((),) * 4))
    with pytest.raises(ValueError, match="this sampler takes every step; accepted: a policy without a budget"):
        plan_for(Multistep(MAGI), 6, policy(0.5))
    assert policy(0.5).exact == replace(EXACT, name="flowcache")


@pytest.mark.parametrize("model", ["tiny-skyreels", "tiny-magi"])
def test_rows_say_a_budget(model):
    spec = find(model)
    said = Written.model_validate("flowcache:0.3").model_dump(exclude_none=True)
    assert said == {"name": "flowcache", "budget": 0.3} == Written.model_validate(said).model_dump(exclude_none=True)
    made = resolve_policy(said, spec)
    floor = Written.model_validate(said | {"quality_floor": 2}).model_dump(exclude_none=True)
    assert resolve_policy(floor, spec).steps == FixedSteps(0.3, spec.calibrations, 2.0)
    assert made.steps == FixedSteps(0.3, spec.calibrations) and made.reuse is None and made.kv_update == "refresh"
    assert made.off == resolve_policy({"name": "off"}, spec) and resolve_policy({"name": "flowcache"}, spec).off is None
    assert resolve_policy({"name": "flowcache"}, spec).reuse == resolve_policy({"name": "paper-mended"}, spec).reuse
    for target in ("off", "converged"):
        assert resolve_policy(said | {"target": target}, spec).steps == FixedSteps(0.3, spec.calibrations, None, target)
    for alone in ({"target": "off"}, {"quality_floor": 1}):
        with pytest.raises(ValueError, match="accepted: with budget"):
            resolve_policy({"name": "flowcache", **alone}, spec)
    for key, value in {"threshold": 0.1, "preset": "slow", "reuse": True, "ret_steps": 1}.items():
        with pytest.raises(ValueError, match=f"{key} does not go with budget"):
            resolve_policy(said | {key: value}, spec)
    for text in ("flowcache:0", "flowcache:1.5", "flowcache:nan"):
        with pytest.raises(ValueError, match=r"accepted: a number above 0, at most 1"):
            Written.model_validate(text)


def test_a_checkpoint_has_its_calibrations_beside_it(tmp_path):
    folder = Path(shutil.copytree(folder_of("tiny-skyreels"), tmp_path / "own"))
    (folder / calibrations.FILE).unlink(missing_ok=True)
    plain = find(str(folder))
    digest, old = folder_digest(folder), calibration(SKYREELS, ((0.5,),) * 4)
    made = replace(old, first_seen=(Seen(0.3, 0.1, 0.05),) * 3, later_seen=(Seen(0.2, 0.1, 0.0),) * 3, predicted=1e-4)
    fewer, begun = (FewerSteps(0.3, made.conditions, 3, 1, by) for by in ("own", "official-start"))
    far, finer = replace(made, target="converged"), replace(fewer, target="converged")
    opened = replace(made, first_computed=(0, 1, 4, 7), base="official-start")
    calibrations.write(folder, digest, [made, replace(old, budget=0.25), fewer, begun, far, finer, opened])
    folder_digest.cache_clear()
    found = find(str(folder))
    assert plain.calibrations == ()
    assert found.calibrations == (made, replace(old, budget=0.25), fewer, begun, far, finer, opened)
    assert found.digest != plain.digest  # a run is another one with other coefficients
    told = json.loads((folder / calibrations.FILE).read_text())
    assert told["presets"][1].keys() == {
        "budget",
        "conditions",
        "computed",
        "first",
        "later",
    }  # as older versions wrote
    faults = {"checkpoint": told | {"checkpoint": "0"}, "presets": told | {"presets": 1}}
    at = told["presets"][0]["conditions"]
    spoilt = [
        told["presets"][0] | change
        for change in ({"computed": [1, 2, 4, 6]}, {"computed": [0, 2, 4]}, {"first": 3}, {"budget": None},
                       {"budget": 0}, {"budget": 1.5}, {"budget": 10**400}, {"first": [[10**400], [], [], []]},
                       {"computed": [0, 2, 4, 8]}, {"conditions": {}}, {"later": [["a"], [], [], []]},
                       {"first_seen": told["presets"][0]["first_seen"][1:]}, {"first_seen": [{"largest": 1.0}] * 3},
                       {"later_seen": [{"largest": -1.0, "mean": 0.0, "std": 0.0}] * 3}, {"predicted": "low"},
                       {"target": "best"}, {"target": None}, {"base": "rk4"}, {"base": None}, {"first_computed": 3},
                       {"first_computed": [0, 1, 2]}, {"first_computed": [1, 2, 3, 4]},
                       {"first_computed": [0, 1, 2, 7], "computed": [0, 1, 2, 3], "conditions": at | {"lag": 3}})
    ]  # fmt: skip
    faulty = {"steps": 0}, {"steps": 9}, {"steps": 2.0}, {"solver": "rk4"}, {"lag": -1}, {"budget": "0.3"}
    spoilt += [told["presets"][2] | change for change in (*faulty, {"target": 1}, {"conditions": None})]
    for field, document in [*faults.items(), *(("presets[0]", told | {"presets": [each]}) for each in spoilt)]:
        (folder / calibrations.FILE).write_text(json.dumps(document))
        folder_digest.cache_clear()
        with pytest.raises(InputError, match="accepted") as refused:
            find(str(folder))
        assert refused.value.problems[0].field == field


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("given", [0, 2])
def test_coefficients_that_are_too_many_or_too_few_are_said_before_the_start(models, family, given):
    """As of a file that another version wrote: when it renders each video would fail."""
    settings = FAMILIES[family][0]

    def fitted(count):
        """So many at the last computed step."""
        table = (), (), (), (0.0,) * count
        return policy(0.6, replace(calibration(settings, table), later=table))

    right = set()
    for many in range(1, 12):
        with suppress(ValueError):
            plan_for(settings, 6, fitted(many), given)
            right.add(many)
    assert len(right) == 1 and run(models[family], settings, fitted(*right), given)[2]


def test_what_was_calibrated_holds_for_the_corrected_solver_alone():
    """A row may ask for a budget by the official one, with which nothing was fitted and measured."""
    made = policy(0.6, calibration(SKYREELS, ((),) * 4))
    official, corrected = (replace(SKYREELS, solver=solver) for solver in ("official", "corrected"))
    assert plan_for(corrected, 6, made).told.endswith("UniPC, corrected, calibrated")
    assert plan_for(official, 6, made).told.endswith("UniPC, official, not calibrated")
