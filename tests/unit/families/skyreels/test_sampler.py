"""What a request's solver does to its sampling plan."""

from dataclasses import replace

import pytest

from flowcache.cache.policy import Policy
from flowcache.families.settings import settings_of
from flowcache.planner.cost import cost
from flowcache.planner.price import cost_model
from flowcache.planner.workload import workload
from flowcache.records import ModelSpec
from tests.unit.planner.earlier import request, specs_in

SPEC = ModelSpec("m", "skyreels", "", "d", chunk=5, window=25, overlap=5, channels=16, steps=50, ar_step=5)


def settings(**fields):
    return settings_of(request(**fields), SPEC)


@pytest.mark.parametrize(("steps", "lag"), [(50, 5), (25, 2), (10, 1), (4, 1), (100, 10)])
def test_the_lag_is_in_proportion_where_the_solver_is_corrected(steps, lag):
    assert settings(steps=steps, solver="corrected").ar_step == lag
    assert settings(steps=steps).ar_step == settings(steps=steps, solver="official").ar_step == 5
    assert settings(steps=steps, solver="corrected", ar_step=7).ar_step == 7  # said is said
    assert settings_of(request(steps=steps, solver="corrected"), replace(SPEC, ar_step=0)).ar_step == 0


def test_the_solver_is_the_one_that_was_asked_for():
    plans = {name: settings(solver=name).plan(25, Policy("off")) for name in (None, "official", "corrected")}
    assert {name: plan.solver.overwritten is not None for name, plan in plans.items()} == {
        None: True, "official": True, "corrected": False,
    }  # fmt: skip
    assert [plan.told for plan in plans.values()] == ["UniPC, official", "UniPC, official", "UniPC, corrected"]


def test_a_plan_says_how_many_segments_each_solver_has(tmp_path):
    """177 frames are two segments."""
    wanted = [request("a"), request("b", solver="corrected"), request("c", 97, solver="corrected")]
    found = cost(workload(wanted, cost_model(specs_in(tmp_path))))
    assert found.sampling == {"UniPC, official": 2, "UniPC, corrected": 3}
