"""UniPC against diffusers', which is given the official noise levels: its own flow levels start elsewhere."""

import torch
from diffusers import UniPCMultistepScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.sampling.solver import SolverState, UniPC, sigmas, timesteps


def flow_scheduler(steps: int, shift: float, official: bool = True) -> UniPCMultistepScheduler:
    scheduler = UniPCMultistepScheduler(
        solver_order=2, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    scheduler.set_timesteps(steps)
    if official:
        scheduler.sigmas = sigmas(steps, shift)
        scheduler.timesteps = torch.tensor(timesteps(scheduler.sigmas))
    return scheduler


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.floats(1, 12), st.booleans(), st.integers(0, 2**32))
def test_steps(steps, shift, in_place, seed):
    """in_place: samples are written over each other, as both denoise loops do, and as the solver then notices."""
    torch.manual_seed(seed)
    levels = sigmas(steps, shift)
    scheduler, solver, state = flow_scheduler(steps, shift), UniPC(levels, levels if in_place else None), SolverState()
    scheduler.set_begin_index(0)  # at high shifts rounded timesteps can be equal
    memory = torch.randn(1, 4, 2, 3)
    sample = memory.clone()
    for index, time in enumerate(scheduler.timesteps):
        velocity = torch.randn_like(memory)
        stepped = scheduler.step(velocity, time, memory, return_dict=False)[0]
        if in_place:
            memory[:] = stepped
        else:
            memory = stepped
        sample, state = solver.step(index, velocity, sample, state)
        torch.testing.assert_close(sample, memory, atol=1e-5, rtol=1e-5)


def test_diffusers_own_levels_are_near():
    """What comes of leaving them as they are: other levels, so other pictures, but no other sampler."""
    for steps, shift in ((30, 5.0), (50, 8.0)):
        own, official = flow_scheduler(steps, shift, official=False).sigmas, sigmas(steps, shift)
        assert 1e-4 < (own - official).abs().max() < 1e-2
