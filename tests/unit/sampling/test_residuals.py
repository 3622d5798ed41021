"""Residuals: nothing where the velocity changes evenly, more the more it bends, and what a calibration saw of them."""

from dataclasses import replace

import pytest
import torch

from flowcache.cache.fixed_steps import Calibration, FixedSteps, Seen
from flowcache.cache.policy import Policy
from flowcache.sampling.loop import Texts, denoise
from flowcache.sampling.planning import plan_for
from flowcache.sampling.residuals import Residuals
from tests.unit.sampling.small import EXACT, FAMILIES, small_magi, small_model

TIMES = (0.0, 0.1, 0.3, 0.4, 0.8, 1.0)  # of five computed steps, and the end
START, SLOPE = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 3.0]])


def alone(values):
    return values


def seen(bend, carried=TIMES, size=2.0):
    """Residuals of a velocity that goes straight, and bends so much."""
    found = Residuals((carried, carried))
    for place, time in enumerate(TIMES[:-1]):
        found.see(0, place, START + SLOPE * (time + bend * time**2), torch.full((1, 2), size))
    return found


def test_an_even_flow_leaves_nothing_out():
    first, *others = seen(0.0).read(0, alone)
    assert len(others) == 3 and max(others) < 1e-6
    size = torch.full((1, 2), 2.0).norm()
    assert first == pytest.approx(float(0.1 / 2 * (SLOPE * 0.1).norm() / size), rel=1e-3)


def test_what_bends_more_leaves_more_out():
    """Twice as much of it twice as much, and half of the latents' size alike; whichever way time is counted."""
    some, more, smaller = (seen(*how).read(0, alone)[1:] for how in ((1.0,), (2.0,), (1.0, TIMES, 1.0)))
    assert min(some) > 0 and more == pytest.approx([2 * each for each in some], rel=1e-3) == smaller
    assert seen(1.0, tuple(-time for time in TIMES)).read(0, alone)[1:] == some


def test_ranks_decide_alike_and_what_was_read_is_forgotten():
    found = seen(1.0)
    three = found.read(0, lambda values: values + values + values)
    assert three == seen(1.0).read(0, alone) and found.read(0, alone) == ()
    off = seen(1.0).read(0, lambda values: 2 * values + torch.tensor([*[1e-9] * 4, 0.0]))  # the other's last bits
    assert off == three
    assert seen(1.0, ()).read(0, alone) == ()


def calibrated(settings, looked=(), budget=0.6, computed=(0, 2, 4, 6)):
    nothing = ((),) * len(computed)
    return Calibration(budget, settings.plan(6, EXACT).conditions, computed, nothing, nothing, *looked)


def policy(*made, floor=None, budget=0.6):
    return Policy("flowcache", kv_update="refresh", steps=FixedSteps(budget, made, floor), off=EXACT)


@pytest.fixture(scope="module")
def models():
    return {"skyreels": small_model(), "magi": small_magi()}


def walk(model, settings, policy, picture=None):
    torch.manual_seed(1)
    noise, texts = torch.randn(4, 6, 4, 4), Texts(torch.randn(1, 8, 16), torch.randn(1, 8, 16))
    return list(denoise(model, noise, texts, settings, policy, picture))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_jump_of_a_budget_has_one(models, family):
    settings = FAMILIES[family][0]
    fitted, plain = calibrated(settings), policy()
    for chosen, count in ((policy(fitted), 3), (plain, plan_for(settings, 6, plain).steps - 1), (EXACT, 0)):
        chunks = walk(models[family], settings, chosen)
        assert [len(chunk.residuals) for chunk in chunks] == [count] * 3
        assert all(0 < each < 1 for chunk in chunks for each in chunk.residuals)
        made = fitted if chosen.steps and chosen.steps.calibrations else None
        assert {(chunk.calibration, chunk.ratio) for chunk in chunks} == {(made, None)}
        assert [chunk.residuals for chunk in walk(models[family], settings, chosen)] == [c.residuals for c in chunks]


def test_they_are_held_against_what_calibration_saw_of_first_and_later_chunks(models):
    settings = FAMILIES["skyreels"][0]
    bare = [chunk.residuals for chunk in walk(models["skyreels"], settings, policy(calibrated(settings)))]
    first = tuple(Seen(each, each, 0.0) for each in bare[0])
    later = tuple(Seen(each / 2, 0.0, 0.0) for each in bare[1])
    chunks = walk(models["skyreels"], settings, policy(calibrated(settings, (first, later))))
    assert [chunk.residuals for chunk in chunks] == bare
    assert [chunk.ratio for chunk in chunks[:2]] == [1.0, 2.0] and chunks[2].ratio != 2.0
    one = calibrated(settings, (first, ()))
    assert one.judges and one.ratio(1, bare[1]) is None and one.ratio(0, bare[0][:2]) is None
    still = calibrated(settings, ((Seen(0.0, 0.0, 0.0),) * 3, later))
    assert still.ratio(0, (1e-7, 0.0, 1e-7)) == pytest.approx(0.1)  # rounding is no fault


def test_frames_that_are_given_do_not_count():
    """Whatever a model says of a frame that is held."""
    settings, chosen = FAMILIES["skyreels"][0], policy(calibrated(FAMILIES["skyreels"][0]))
    model = small_model()
    project = model.project

    def wild(tokens, conditioning, grid):
        out = project(tokens, conditioning, grid)
        out[:, :, 0] *= wildness
        return out

    model.project, found, wildness = wild, [], 1.0
    for _ in range(2):
        wildness *= 50
        found.append([chunk.residuals for chunk in walk(model, settings, chosen, torch.zeros(4, 1, 4, 4))])
    assert found[0][0] == found[1][0] and found[0][1] != found[1][1]


def test_a_plan_says_what_a_floor_may_cost():
    settings = FAMILIES["skyreels"][0]
    looked = (Seen(0.1, 0.1, 0.0),) * 3
    made = calibrated(settings, (looked, looked))
    more = ((0.8, (0, 1, 2, 3, 5, 7)), (0.7, (0, 1, 3, 5, 7)), (0.4, (0, 4)))
    larger = [calibrated(settings, budget=budget, computed=computed) for budget, computed in more]
    elsewhere = replace(made, budget=0.75, conditions=replace(made.conditions, steps=9))
    floor = policy(made, *larger, elsewhere, floor=1.5)
    assert floor.steps and floor.steps.larger(made) == (0.7, 0.8)
    again = "again at 0.7, then at 0.8, then every step: more forwards than said"
    where = "where residuals exceed 1.5 times what calibration saw"
    assert plan_for(settings, 6, floor).told.endswith(f"calibrated; {where}, {again}")
    assert plan_for(settings, 6, policy(made, *larger)).told.endswith("calibrated")
    for blind in (policy(calibrated(settings), floor=1.5), policy(floor=1.5)):
        assert plan_for(settings, 6, blind).told.endswith(
            "quality_floor judges nothing, as nobody looked what it leaves out"
        )
