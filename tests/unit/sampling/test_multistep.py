"""Adams-Bashforth: exact where velocities change evenly, and better than Euler where they bend."""

import math

import pytest
import torch

from flowcache.cache.policy import Policy
from flowcache.families.known import family
from flowcache.families.registry import find
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.records import RenderRequest, Shot
from flowcache.sampling.multistep import AdamsBashforth, Multistep
from flowcache.sampling.solver import Euler

TIMES = (0.0, 0.1, 0.3, 0.4, 1.0)


def solve(solver, velocity, x):
    state = solver.start
    for step, time in enumerate(solver.times[:-1]):
        x, state = solver.step(step, velocity(time, x), x, state)
    return float(x)


def test_even_change_is_followed_exactly_after_the_first_step():
    """v = 2 t: Euler's first step, over which v is 0, lacks .1 ** 2."""
    assert solve(AdamsBashforth(TIMES), lambda t, x: torch.tensor(2 * t), torch.tensor(0.0)) == pytest.approx(1 - 0.01)


def test_the_second_order_shows():
    exact = math.e
    errors = {}
    for kind in (Euler, AdamsBashforth):
        for steps in (20, 40):
            times = tuple(step / steps for step in range(steps + 1))
            errors[kind, steps] = abs(
                solve(kind(times), lambda t, x: x, torch.tensor(1.0, dtype=torch.float64)) - exact
            )
    assert errors[Euler, 20] / errors[Euler, 40] == pytest.approx(2, rel=0.1)
    assert errors[AdamsBashforth, 20] / errors[AdamsBashforth, 40] == pytest.approx(4, rel=0.1)


def test_a_family_keeps_all_but_its_solver():
    spec = find("tiny-magi")
    own = family("magi").settings(request(spec), spec)
    before, after = own.plan(12, Policy("off")), Multistep(own).plan(12, Policy("off"))
    assert after.solver == AdamsBashforth(before.solver.times) and after.told == "Adams-Bashforth"
    assert after.rows == before.rows and (Multistep(own).chunk, Multistep(own).fps) == (own.chunk, own.fps)


def test_what_remembers_more_is_refused():
    with pytest.raises(ValueError, match="UniPC remembers more than Euler"):
        Multistep(SamplerSettings(4, 3.0, 3.0, 2, 2, 24)).plan(4, Policy("off"))


def request(spec):
    shots = (Shot("a red circle", spec.frames),)
    return RenderRequest("v", shots, 64, 64, spec.fps, 0, spec.guidance, 8, spec.name, {"name": "off"})
