"""How each name is run, and what a model can't be run by."""

from dataclasses import replace
from typing import get_args

import pytest
import torch

from flowcache.bench import recipes
from flowcache.bench.names import AB2, ALL, START, Entry
from flowcache.bench.recipes import chosen
from flowcache.families.registry import find
from flowcache.sampling.dry_run import dry_run
from flowcache.sampling.planning import plan_for
from flowcache.worker.windows import FINER, Target

NOTHING = ((1.0,) * 32,)


def made(name: str, model: str) -> dict:
    """By setting."""
    policy, _, setting = name.partition(":")
    return {entry.setting: recipe for entry, recipe in recipes.recipes(Entry(policy, setting), find(model), NOTHING)}


def settings(recipe, spec):
    return recipe.settings(recipe.request(spec, "", 0), spec)


@pytest.mark.parametrize("model", ["tiny-skyreels", "tiny-magi"])
def test_the_bundled_models_can_be_run_by_all(model):
    spec = find(model)
    found = chosen(ALL, frozenset(), spec, NOTHING)
    assert not found.left_out and {*ALL} <= {entry for entry, _ in found.recipes}
    assert all(hash(recipe) and recipe.told(spec) for _, recipe in found.recipes)


def test_fewer_steps_are_as_many_as_our_budget_allows_by_the_right_solver_with_the_lag_in_proportion():
    spec = find("tiny-skyreels")
    ours, official = (made(f"{name}:0.3", spec.name)["0.3"] for name in ("fewer-steps", "fewer-steps-official"))
    assert ours.steps == official.steps == 11
    assert (settings(ours, spec).solver, settings(ours, spec).ar_step) == ("corrected", 2)
    assert (settings(official, spec).solver, settings(official, spec).ar_step) == ("official", 6)
    counts = [forwards(each, spec) for each in (ours, official, made("flowcache:0.3", spec.name)["0.3"])]
    assert (
        counts == [118, 118, 124] and forwards(recipes.off(spec), spec) == 420
    )  # 0.3 of them are 126; a step more: 128


def forwards(recipe, spec):
    shape = spec.latent_frames(recipe.request(spec, "", 0).frames), 8, 8
    return dry_run(settings(recipe, spec), shape, (1, 1, 1), recipe.policy).forwards


@pytest.mark.parametrize("budget", ["0.6", "0.45", "0.3", "0.22", "0.15"])
@pytest.mark.parametrize("model", ["tiny-skyreels", "tiny-magi"])
def test_without_a_calibration_ours_is_the_same_plan_as_fewer_steps(model, budget):
    spec = replace(find(model), calibrations=())
    plans = []
    for name in ("flowcache", "fewer-steps"):
        recipe = dict(recipes.recipes(Entry(name, budget), spec, NOTHING))[Entry(name, budget)]
        plans.append(plan_for(settings(recipe, spec), spec.window, recipe.policy))
    ours, fewer = plans
    assert (ours.rows, ours.steps) == (fewer.rows, fewer.steps) and type(ours.solver) is type(fewer.solver)


def test_where_the_solver_is_euler_both_orders_are_measured():
    found = made("fewer-steps:0.45", "tiny-magi")
    assert list(found) == ["0.45", "0.45" + AB2] and found["0.45"].steps == 13
    assert [recipe.told(find("tiny-magi")) for recipe in found.values()] == ["Euler", "Adams-Bashforth"]
    official = made("fewer-steps-official:0.45", "tiny-magi")["0.45"]
    assert official == found["0.45"] != found["0.45" + AB2]  # the family has no other solver: rendered once


def test_what_begins_as_off_does_is_measured_where_off_is_the_target():
    spec, entry = find("tiny-skyreels"), Entry("fewer-steps", "0.45")
    found = {target: dict(chosen([entry], frozenset(), spec, NOTHING, target).recipes) for target in get_args(Target)}
    begun = replace(entry, setting="0.45" + START)
    assert {target: [*made] for target, made in found.items()} == {"off": [entry, begun], "converged": [entry]}
    ours, other = found["off"].values()
    assert other.told(spec) == "UniPC, official start" and forwards(other, spec) == forwards(ours, spec)
    assert torch.equal(other.plan(spec).solver.overwritten, recipes.off(spec).plan(spec).solver.noise_levels)


def test_a_budget_takes_what_was_calibrated_to_the_target():
    found, spec = {}, find("tiny-skyreels")
    for target in get_args(Target):
        ((entry, recipe),) = chosen([Entry("flowcache", "0.3")], frozenset(), spec, NOTHING, target).recipes
        found[target] = recipe.policy.steps.target, recipe.said.get("target")
        assert settings(recipe, spec).solver == "corrected"
    assert found == {"off": (None, None), "converged": ("converged", "converged")}


def test_only_ours_and_the_repaired_ones_have_the_right_solver():
    spec = find("tiny-skyreels")
    by = {
        entry.policy: settings(recipe, spec).solver
        for entry, recipe in chosen(ALL, frozenset(), spec, NOTHING).recipes
        if recipe.by == "own"
    }
    corrected = {"flowcache", "fewer-steps"}
    assert by == {policy: "corrected" if policy in corrected else "official" for policy in by}
    assert settings(recipes.off(spec), spec).solver == "official"
    finest = recipes.converged(spec)
    assert (finest.steps, settings(finest, spec).solver) == (FINER * 30, "corrected")
    assert settings(finest, spec).ar_step == FINER * spec.ar_step


def test_what_a_model_lacks_is_left_out_of_all_and_refused_by_name():
    spec = replace(find("tiny-magi"), reuse={})
    found = chosen(ALL, frozenset(), spec, NOTHING)
    assert {entry.policy for entry in found.left_out} == {"teacache", "paper", "paper-mended"}
    assert all("unknown preset" in why for why in found.left_out.values())
    with pytest.raises(ValueError, match="^paper:fast: unknown preset 'fast'"):
        chosen(ALL, frozenset({Entry("paper", "fast")}), spec, NOTHING)


def test_a_window_is_as_long_as_the_model_allows_at_most():
    spec = find("tiny-magi")
    assert recipes.off(spec).request(spec, "", 0).frames == spec.frames == 72
    assert recipes.off(spec).request(replace(spec, frames=720), "", 0).frames == spec.video_frames(spec.window)
