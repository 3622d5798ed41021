"""Fewer steps that begin as `off` does: with all steps they are `off`, and another solver has no such fault."""

from dataclasses import replace

import pytest
import torch

from flowcache.cache.policy import Policy
from flowcache.sampling.loop import Texts, denoise
from flowcache.sampling.official_start import OfficialStart
from tests.unit.sampling.small import EXACT, MAGI, SKYREELS, small_model

OFFICIAL = replace(SKYREELS, solver="official")


def latents(settings):
    torch.manual_seed(1)
    noise, texts = torch.randn(4, 6, 4, 4), Texts(torch.randn(1, 8, 16), torch.randn(1, 8, 16))
    return torch.cat([chunk.latents for chunk in denoise(small_model(), noise, texts, settings, EXACT)], 1)


def test_with_all_steps_it_is_the_official_program():
    begun = latents(OfficialStart(SKYREELS, SKYREELS))
    assert torch.equal(begun, latents(OFFICIAL)) and not torch.equal(begun, latents(SKYREELS))


def test_with_fewer_steps_the_fault_is_as_large_as_with_all():
    """Not as that of the official program with fewer, whose first step is longer."""
    fewer = SKYREELS.fewer(4)
    right, wrong, begun = map(latents, (fewer, replace(fewer, solver="official"), OfficialStart(fewer, SKYREELS)))
    assert 0 < (begun - right).abs().mean() < (wrong - right).abs().mean() / 1.5


def test_a_family_keeps_all_but_its_solver():
    fewer = SKYREELS.fewer(4)
    before, begun = fewer.plan(6, Policy("off")), OfficialStart(fewer, SKYREELS)
    after = begun.plan(6, Policy("off"))
    assert (after.rows, begun.chunk, begun.fps) == (before.rows, fewer.chunk, fewer.fps)
    assert (before.told, after.told) == ("UniPC, corrected", "UniPC, official start")


def test_another_solver_is_refused():
    with pytest.raises(ValueError, match="Euler has no official start; accepted: UniPC"):
        OfficialStart(MAGI.fewer(4), MAGI).plan(6, Policy("off"))
