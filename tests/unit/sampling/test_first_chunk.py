"""A window's first chunk may take more steps than those that follow it: all of them make it that of `off`."""

from dataclasses import replace

import pytest
import torch

from flowcache.cache.fixed_steps import Calibration
from flowcache.families.registry import find
from flowcache.families.settings import settings_of
from flowcache.records import Shot
from flowcache.sampling.budget import allowed, count
from flowcache.sampling.calibrated import Calibrated
from flowcache.sampling.dry_run import at_most, dry_run
from flowcache.sampling.planning import plan_for
from flowcache.sampling.proposal import even_steps
from flowcache.sampling.solver import UniPC
from flowcache.worker.windows import NOBODY, request_of
from tests.unit.sampling.small import EXACT, FAMILIES, OFF, SKYREELS, policy, run, small_magi, small_model

EVERY, LATER = tuple(range(8)), (0, 2, 4, 6)
BASES = {"skyreels": "official-start", "magi": "own"}


@pytest.fixture(scope="module")
def models():
    return {"skyreels": small_model(), "magi": small_magi()}


def opened(settings, first=EVERY, later=LATER, base="own"):
    at = settings.plan(6, EXACT).conditions
    return Calibration(0.8, at, later, ((),) * len(first), ((),) * len(later), first_computed=first, base=base)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_every_step_it_is_that_of_off_to_the_bit(models, family):
    """Of SkyReels-V2 by the solver that has the fault of `off`, where the official program runs."""
    settings, _ = FAMILIES[family]
    official = replace(settings, solver="official") if family == "skyreels" else settings
    exact, _, every = run(models[family], official, EXACT)
    latents, chunks, forwards = run(models[family], settings, policy(0.8, opened(settings, base=BASES[family])))
    assert torch.equal(latents[:, :2], exact[:, :2]) and not torch.equal(latents[:, 2:], exact[:, 2:])
    assert [chunk.decisions[1] for chunk in chunks] == ["11111111", "10101010", "10101010"]
    assert forwards < every and [chunk.index for chunk in chunks] == [0, 1, 2]
    alike, *_ = run(models[family], settings, policy(0.8, opened(settings, LATER, base=BASES[family])))
    assert (latents - exact).square().mean() < (alike - exact).square().mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_forwards_are_known_before_and_residuals_are_of_its_own_jumps(models, family):
    settings, _ = FAMILIES[family]
    made = policy(0.8, opened(settings, (0, 1, 2, 4, 5, 7)))
    _, chunks, forwards = run(models[family], settings, made)
    assert forwards == dry_run(settings, (6, 4, 4), (1, 1, 1), at_most(made)).forwards
    assert [len(chunk.residuals) for chunk in chunks] == [5, 3, 3]
    assert plan_for(settings, 6, made).told.startswith("4 of 8 steps (6 of a window's first chunk), ")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_that_goes_on_has_no_first_chunk(models, family):
    """What it continues stands there."""
    settings, _ = FAMILIES[family]
    latents, chunks, forwards = run(models[family], settings, policy(0.8, opened(settings)), given=2)
    same, _, same_forwards = run(models[family], settings, policy(0.8, opened(settings, LATER)), given=2)
    assert torch.equal(latents, same) and forwards == same_forwards
    assert {chunk.decisions[1] for chunk in chunks} == {"10101010"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_that_goes_on_takes_the_preset_that_fits_it(family):
    """What its budget allows there is not spent on a first chunk."""
    settings, off = replace(FAMILIES[family][0], window=6), EXACT
    rich = replace(opened(settings, EVERY, (0, 1, 2, 4, 5, 6)), budget=0.95)
    poor = replace(opened(settings, EVERY, LATER), budget=0.8)
    made, taken = policy(0.8, rich, poor, off=off), {}
    for frames, given in ((6, 0), (6, 1), (6, 2), (4, 2), (8, 2)):
        plan = plan_for(settings, frames, made, given)
        taken[frames, given] = len(plan.computed)
        assert count(plan) <= 0.8 * count(plan_for(settings, max(frames, 6), off, given))
    assert taken == {(6, 0): 4, (6, 1): 4, (6, 2): 6, (4, 2): 6, (8, 2): 6}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_budget_is_kept_in_windows_of_every_length(models, family):
    """Of a window of one chunk every step is all of `off`: there it is a run of fewer steps."""
    settings, _ = FAMILIES[family]
    for chunks in (1, 2, 3, 6):
        own = replace(settings, window=2 * chunks)
        most = 0.8 * count(plan_for(own, 2 * chunks, OFF[family]))
        plan = plan_for(own, 2 * chunks, policy(0.8, opened(own), off=OFF[family]))
        assert count(plan) <= most and (plan.calibration is None) == (chunks == 1)


def test_of_all_presets_that_fit_the_one_of_the_largest_budget_is_taken():
    """Also where that is larger than the row's own, as in long windows, whose finished chunks `off`
    forwards anew."""
    presets = [replace(opened(SKYREELS, EVERY, even_steps(8, n)), budget=n / 8) for n in (2, 4, 7)]
    taken = {}
    for chunks in (3, 4, 5):
        made = policy(0.5, *presets, off=OFF["skyreels"])
        plan = plan_for(replace(SKYREELS, window=2 * chunks), 2 * chunks, made)
        fitting = [len(each.computed) for each in presets if count_of(each, chunks) <= most(made, chunks)]
        taken[chunks] = len(plan.computed)
        assert taken[chunks] == max(fitting, default=0)
    assert taken == {3: 4, 4: 4, 5: 7}


def count_of(preset, chunks):
    settings = replace(SKYREELS, window=2 * chunks)
    return count(plan_for(settings, 2 * chunks, policy(1.0, replace(preset, budget=1.0))))


def most(made, chunks):
    return allowed(replace(SKYREELS, window=2 * chunks), made, 2 * chunks)


@pytest.mark.parametrize("model", ["tiny-skyreels", "tiny-magi"])
def test_a_budget_is_a_share_of_what_the_video_takes_where_it_is_shorter_than_a_window(model):
    """Until the next cut: what starts fresh takes a first chunk's steps again."""
    spec, taken = find(model), {}
    one, four = spec.video_frames(spec.chunk), spec.video_frames(4 * spec.chunk)
    for name, shots in {
        "one": (Shot("", one),),
        "four": (Shot("", four),),
        "goes on": (Shot("", one), Shot("", four - one, cut=False)),
        "cut": (Shot("", four), Shot("", one, cut=True)),
        "long": (Shot("", spec.video_frames(40 * spec.chunk)),),
        "part of a chunk": (Shot("", one - 1),),
    }.items():
        taken[name] = spec.fresh(shots) // spec.chunk
        request = request_of(spec, NOBODY, 1, 0.3)
        assert settings_of(replace(request, shots=shots), spec).window == spec.fresh(shots)
    window = spec.window // spec.chunk
    assert taken == {"one": 1, "four": 4, "goes on": 4, "cut": 1, "long": window, "part of a chunk": 1}


def test_the_solver_that_begins_as_off_does():
    plan = plan_for(SKYREELS, 6, policy(0.8, opened(SKYREELS, base="official-start")))
    assert all(isinstance(each, Calibrated) and isinstance(each.base, UniPC) for each in (plan.opening, plan.solver))
    assert torch.equal(plan.solver.base.overwritten, SKYREELS.plan(6, EXACT).solver.noise_levels)
    with pytest.raises(ValueError, match="Euler has no official-start; accepted: own"):
        plan_for(FAMILIES["magi"][0], 6, policy(0.8, opened(FAMILIES["magi"][0], base="official-start")))
