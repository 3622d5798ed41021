"""UniPC: exact where the solution is known, and equal to diffusers' scheduler."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.sampling.solver import SolverState, UniPC, sigmas, timesteps


def solve(steps, shift, velocity, x, overwritten=False):
    levels = sigmas(steps, shift)
    solver, state = UniPC(levels, levels if overwritten else None), SolverState()
    for step in range(steps):
        x, state = solver.step(step, velocity(x, levels[step]), x, state)
    return x


@settings(deadline=None)
@given(st.integers(1, 60), st.floats(0.5, 12))
def test_sigmas_fall_to_zero(steps, shift):
    levels = sigmas(steps, shift)
    assert len(levels) == steps + 1 and levels[-1] == 0 and (levels.diff() < 0).all() and levels[0] < 1
    assert len(timesteps(levels)) == steps


@settings(deadline=None)
@given(st.integers(1, 40), st.floats(1, 10), st.booleans())
def test_straight_path_is_solved_exactly(steps, shift, overwritten):
    """Where all noise leads to one point, each x0 prediction is that point, and so is the result."""
    torch.manual_seed(0)
    goal, start = torch.randn(2, 5)
    x = solve(steps, shift, lambda x, sigma: (x - goal) / sigma, start, overwritten)
    torch.testing.assert_close(x, goal, atol=1e-4, rtol=0)


def test_more_steps_come_closer():
    """For Gaussian data of std 0.5 the exact flow scales x by std(0) / std(start): second order must show."""
    std, start = 0.5, torch.tensor([1.3])

    def velocity(x, sigma):
        variance = (1 - sigma) ** 2 * std**2 + sigma**2
        return x * (sigma - (1 - sigma) * std**2) / variance

    first = sigmas(1, 3.0)[0]
    exact = start * std / ((1 - first) ** 2 * std**2 + first**2) ** 0.5
    errors = [abs(solve(steps, 3.0, velocity, start) - exact).item() for steps in (10, 20, 40)]
    assert errors[0] / errors[1] > 3 and errors[1] / errors[2] > 3 and errors[2] < 5e-3


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_equals_diffusers(steps):
    scheduler_class = pytest.importorskip("diffusers").UniPCMultistepScheduler
    theirs = scheduler_class(prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=2)
    theirs.set_timesteps(steps)
    levels = sigmas(steps, 8.0)
    theirs.sigmas = levels  # its own start at 1
    torch.manual_seed(0)
    ours = other = torch.randn(1, 4, 3)
    solver, state = UniPC(levels), SolverState()
    for step in range(steps):
        velocity = torch.randn(1, 4, 3)
        ours, state = solver.step(step, velocity, ours, state)
        other = theirs.step(velocity, theirs.timesteps[step], other).prev_sample
        torch.testing.assert_close(ours, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("steps", [2, 11, 18, 30])
def test_the_official_start_moves_latents_along_the_first_velocity(steps):
    """By what the first step of all steps moves them, as much smaller as the noise is at the first correction."""
    levels, every = sigmas(steps, 8.0), sigmas(30, 8.0)
    torch.manual_seed(0)
    x, first, second = torch.randn(3, 64, dtype=torch.float64)
    states, results = [], []
    for solver in (UniPC(levels), UniPC(levels, every)):
        result, state = solver.step(0, first, x, solver.start)
        _, state = solver.step(1, second, result, state)
        states.append(state)
        results.append(result)
    moved = levels[1] / levels[0] * (every[1] - every[0]) * first
    assert torch.equal(*results)  # the model sees it one step later
    torch.testing.assert_close(states[1].sample - states[0].sample, moved.double(), atol=1e-6, rtol=1e-4)
    assert torch.equal(states[0].outputs[1], states[1].outputs[1])


def test_a_step_changes_nothing_it_was_given():
    solver, x, velocity = UniPC(sigmas(5, 3.0)), torch.randn(4), torch.randn(4)
    before = x.clone()
    _, state = solver.step(0, velocity, x, SolverState())
    one, _ = solver.step(1, velocity, x, state)
    again, _ = solver.step(1, velocity, x, state)
    assert torch.equal(one, again) and torch.equal(x, before)
