"""A calibration of another guidance: the same coefficients, of branches as its own guidance would have to see them."""

from dataclasses import replace

import pytest
import torch

from flowcache.cache.fixed_steps import STRONGEST, WEAKEST, Calibration, FewerSteps, FixedSteps, Seen
from flowcache.cache.policy import Policy
from flowcache.sampling.budget import allowed, count
from flowcache.sampling.calibrated import Calibrated
from flowcache.sampling.guidance import guide
from flowcache.sampling.planning import plan_for
from flowcache.sampling.proposal import even_steps
from flowcache.sampling.solver import UniPC, sigmas
from tests.unit.sampling.small import EXACT, MAGI, SKYREELS

HALF = (0, 2, 4, 6)


def fitted(settings, budget=0.5, computed=HALF, table=None):
    nothing, seen = ((),) * len(computed), (Seen(1.0, 1.0, 0.0),) * (len(computed) - 1)
    at = settings.plan(6, EXACT).conditions
    return Calibration(budget, at, computed, table or nothing, table or nothing, seen, seen, 1e-3)


def planned(settings, *presets, budget=0.5, floor=None):
    steps = FixedSteps(budget, presets, floor)
    return plan_for(settings, 6, Policy("flowcache", kv_update="refresh", steps=steps, off=Policy("off")))


def guided(factor, settings=SKYREELS):
    return replace(settings, guidance=settings.guidance * factor)


def test_steps_are_those_of_the_fit_for_branches_that_its_guidance_makes_the_same_velocity_of():
    """Through a whole walk, second order and all."""
    torch.manual_seed(0)
    levels = sigmas(4, 3.0)
    table = tuple(tuple(torch.randn(count).tolist()) for count in (4, 6, 7, 7))
    solvers = {
        guidance: Calibrated(UniPC(levels), lambda step, found, w=guidance: guide(found, w), HALF, table, ratio)
        for guidance, ratio in ((2.0, 1.0), (3.0, 1.5))
    }
    walks = {guidance: (torch.ones(3, 5), solver.start) for guidance, solver in solvers.items()}
    for number in range(4):
        first, second = torch.randn(2, 3, 5)
        branches = {3.0: torch.stack([first, second]), 2.0: torch.stack([second + 1.5 * (first - second), second])}
        walks = {
            guidance: solver.step(number, branches[guidance], *walks[guidance], lambda: torch.zeros(()))
            for guidance, solver in solvers.items()
        }
        torch.testing.assert_close(walks[2.0][0], walks[3.0][0], rtol=1e-4, atol=1e-4)


def test_at_its_own_guidance_it_is_as_it_was():
    made = fitted(SKYREELS, table=((0.5,) * 4, (), (), ()))
    plan = planned(SKYREELS, made)
    assert plan.calibration is made and isinstance(plan.solver, Calibrated) and plan.solver.strength == 1
    assert plan.told == "4 of 8 steps, UniPC, corrected, calibrated"


@pytest.mark.parametrize("factor", [WEAKEST, STRONGEST])
def test_another_guidance_takes_it_and_says_so(factor):
    made = fitted(SKYREELS)
    plan = planned(guided(factor), made, floor=1.0)
    said = plan.told.partition(";")
    assert said[0] == "4 of 8 steps, UniPC, corrected, calibrated at guidance 3"
    assert said[2].startswith(" quality_floor judges nothing")
    assert plan.computed == HALF and plan.calibration == replace(made, first_seen=(), later_seen=(), predicted=None)
    assert isinstance(plan.solver, Calibrated) and plan.solver.strength == pytest.approx(factor)
    assert plan.opening and plan.opening.strength == pytest.approx(factor)
    assert count(plan) == count(planned(SKYREELS, made))


@pytest.mark.parametrize(
    "settings",
    [
        guided(STRONGEST * 1.01),
        guided(WEAKEST * 0.99),
        replace(guided(1.2), steps=9),
        replace(guided(1.2), shift=2.0),
        replace(guided(1.2), ar_step=2),
    ],
)
def test_elsewhere_it_is_a_run_of_fewer_steps(settings):
    assert planned(settings, fitted(SKYREELS)).told.endswith("not calibrated")


def test_what_has_one_branch_or_other_weights_takes_none():
    assert planned(replace(SKYREELS, guidance=1.2), fitted(replace(SKYREELS, guidance=1.0))).calibration is None
    assert planned(guided(1.2, MAGI), fitted(MAGI)).calibration is None


def test_its_own_preset_comes_first_then_the_nearest_guidance():
    at = guided(1.4)
    weak, near, strong = fitted(SKYREELS), fitted(guided(1.2)), fitted(guided(1.8))
    assert planned(at, weak, near, strong).calibration.conditions == near.conditions
    assert planned(at, near, fitted(at, 0.49, (0, 1, 4, 6))).computed == (0, 1, 4, 6)  # though of a smaller budget
    fewer = FewerSteps(0.4, SKYREELS.plan(6, EXACT).conditions, 3, 2)
    assert planned(at, fewer).told.endswith("not calibrated")  # how many are best was not measured there


@pytest.mark.parametrize("guidance", [1.0, 2.0, 3.0, 3.1, 6.0, 6.1])
@pytest.mark.parametrize("steps", [2, 5, 8, 13, 30])
def test_forwards_stay_within_the_budget(guidance, steps):
    """Whatever a row's steps and guidance are, beside what was calibrated."""
    settings = replace(SKYREELS, steps=steps, guidance=guidance, window=6)
    presets = [fitted(SKYREELS, budget, even_steps(8, int(8 * budget))) for budget in (0.3, 0.5, 0.8)]
    for budget in (0.3, 0.4, 0.6):
        plan = planned(settings, *presets, budget=budget)
        policy = Policy("flowcache", kv_update="refresh", steps=FixedSteps(budget), off=Policy("off"))
        assert count(plan) <= allowed(settings, policy, 6) or plan.steps == 1
        assert (plan.calibration is not None) == (steps == 8 and guidance in (2.0, 3.0, 3.1, 6.0))
