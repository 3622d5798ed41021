"""Solvers that re-noise between steps draw from (chunk, step), never from the order in which things ran."""

from dataclasses import dataclass, replace

import pytest
import torch

from flowcache.cache.policy import Policy
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.sampling.loop import Texts, denoise
from tests.unit.parallel.cases import Case, model_of


class Renoising:
    """Few-step models: to the clean sample, and back to the next level with fresh noise."""

    start = None

    def __init__(self, levels):
        self.levels = levels

    def step(self, index, velocity, sample, state, noise):
        clean, level = sample - self.levels[index] * velocity, self.levels[index + 1]
        return (1 - level) * clean + level * noise() if level else clean, None


@dataclass(frozen=True)
class FewSteps(SamplerSettings):
    def plan(self, frames, policy, given=0):
        return replace(super().plan(frames, policy, given), solver=Renoising((0.999, 0.6, 0.3, 0.0)))


SETTINGS = FewSteps(steps=3, shift=3.0, guidance=1.0, ar_step=1, chunk=2, fps=24)


def drawn(chunk: int, step: int) -> torch.Tensor:
    return torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(100 * chunk + step))


def run(settings, step_noise=drawn):
    torch.manual_seed(0)
    case = Case("skyreels", Policy("off"), 2, 1, 2, 3, 4, 4, 3, 1, picture=False, end=False, seed=0)
    model, noise, texts = model_of(case), torch.randn(4, 6, 4, 4), Texts(torch.randn(1, 3, 8))
    chunks = denoise(model, noise, texts, settings, case.policy, step_noise=step_noise)
    return torch.cat([chunk.latents for chunk in chunks], dim=1)


def test_noise_comes_from_chunk_and_step():
    asked = []

    def noted(chunk, step):
        asked.append((chunk, step))
        return drawn(chunk, step)

    first = run(SETTINGS, noted)
    assert sorted(asked) == [(chunk, step) for chunk in range(3) for step in range(2)]  # the last step needs none
    assert torch.equal(first, run(SETTINGS))
    assert (run(SETTINGS, lambda chunk, step: drawn(chunk, step + 9)) - first).abs().max() > 1e-3


def test_a_solver_that_draws_needs_something_to_draw_from():
    with pytest.raises(ValueError, match="step_noise"):
        run(SETTINGS, None)
