"""Schedule and solver against the official ones."""

import pytest
import torch

from flowcache.sampling.schedule import schedule
from flowcache.sampling.solver import SolverState, UniPC, sigmas, timesteps
from tests.parity.given import Given


@pytest.mark.golden("skyreels_timestep_matrix", "settings")
def test_timestep_matrix(golden, case):
    templates = golden.facts("skyreels_timestep_matrix")["templates"]
    with Given("setting", case) as said:
        frames, chunk, steps, ar_step, ready, base = (said[key] for key in ("F", "blk", "N", "ar", "pre", "base"))
        said.skip("id", "rows", "cols", "diffusers_equal", "fork_equal", "valid_interval", "raises")

    def grid():
        return schedule(frames, chunk, templates[str(steps)], ar_step, ready, base)

    if "raises" in case or case["F"] % chunk:  # the official code drops the frames over: we refuse them
        with pytest.raises(ValueError, match=r"nearest|at least"):
            grid()
        return
    rows, data = grid(), golden.tensors("skyreels_timestep_matrix")
    for ours, theirs in (("index", "step_index"), ("timesteps", "step_matrix"), ("update", "update_mask")):
        frames = torch.tensor([getattr(row, ours) for row in rows]).repeat_interleave(chunk, 1)
        torch.testing.assert_close(frames, data[f"{case['id']}.{theirs}"].to(frames), rtol=0, atol=0)
    assert [[first * chunk, end * chunk] for first, end in (row.window for row in rows)] == case["valid_interval"]


@pytest.mark.golden("skyreels_scheduler")
def test_scheduler(golden, case):
    with Given("schedule", case) as said:
        steps, shift = said["N"], said["shift"]
        said.skip("diffusers_t_equal", "sig_diff", "step_diff", "t_diffusers", "dups")
    data, name = golden.tensors("skyreels_scheduler"), f"N{steps}_s{shift}"
    levels = sigmas(steps, shift)
    torch.testing.assert_close(levels, data[f"{name}.sigmas"], atol=1e-7, rtol=0)
    assert list(timesteps(levels)) == data[f"{name}.timesteps"].tolist()
    if f"{name}.out" not in data:
        return
    solver, state, x = UniPC(levels), SolverState(), data[f"{name}.x"]
    for step, velocity in enumerate(data[f"{name}.v"]):
        x, state = solver.step(step, velocity, x, state)
        torch.testing.assert_close(x, data[f"{name}.out"][step], atol=1e-5, rtol=0)
