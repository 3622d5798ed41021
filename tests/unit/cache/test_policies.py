"""Policies at work in the denoise loop, on a tiny random model."""

from dataclasses import replace

import pytest
import torch

from flowcache.cache.kv_select import Compression, Sink
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import JointReuse, Reuse
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.sampling.loop import Texts, denoise

SETTINGS = SamplerSettings(steps=6, shift=3.0, guidance=3.0, ar_step=2, chunk=2, fps=24)
TOKENS = 8  # of a chunk
REUSE = Reuse(threshold=0.3, warmup_steps=2, coefficients=(1.0, 0.0))
JOINT = JointReuse(**vars(REUSE))
TEACACHE = Policy("teacache", JOINT, "refresh")


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = SkyReelsTransformer(SkyReelsConfig(24, 48, 2, 2, in_channels=4, out_channels=4, text_dim=8, freq_dim=16))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def run(model, chunks, policy, settings=SETTINGS, **kwargs):
    """Latents, visits and bytes of K/V."""
    torch.manual_seed(1)
    noise, texts = torch.randn(4, 2 * chunks, 4, 4), Texts(torch.randn(1, 3, 8), torch.randn(1, 3, 8))
    visits = []
    finished = list(denoise(model, noise, texts, settings, policy, observe=visits.append, **kwargs))
    return torch.cat([chunk.latents for chunk in finished], dim=1), visits, finished[-1].kv_bytes


def test_teacache_decides_once_a_row(model):
    _, visits, _ = run(model, 4, TEACACHE)
    moving = [visit for visit in visits if visit.step >= 0]
    rows = {row: {visit.decision.compute for visit in moving if visit.row == row} for row in {v.row for v in moving}}
    assert all(len(decisions) == 1 for decisions in rows.values())
    assert {False} in rows.values()
    always = [0, 1, 2, 4, 6, max(rows)]  # the first ones, where chunks begin, and the last
    assert all(rows[row] == {True} for row in always)


def test_teacache_sees_the_timesteps_of_the_whole_window(model):
    """Against the model's own embedding of every frame's timestep."""
    _, visits, _ = run(model, 3, TEACACHE)
    for row in (3, 5):
        now, before = (whole_window_signal(model, visits, r, 3) for r in (row, row - 1))
        (visit,) = {v.decision for v in visits if v.row == row and v.step >= 0}
        assert visit.distance == pytest.approx(((now - before).abs().mean() / before.abs().mean()).item(), rel=1e-5)


def whole_window_signal(model, visits, row, chunks):
    from flowcache.sampling.schedule import schedule
    from flowcache.sampling.solver import sigmas, timesteps

    grid = schedule(2 * chunks, 2, timesteps(sigmas(SETTINGS.steps, SETTINGS.shift)), SETTINGS.ar_step)
    times = torch.tensor([grid[row].timesteps]).repeat_interleave(2, 1)
    with torch.inference_mode():
        return model.signal(model.condition(times, model.grid(torch.zeros(1, 4, 2 * chunks, 4, 4)), SETTINGS.fps))


def test_teacache_without_reuse_is_off(model):
    always = Policy("teacache", JointReuse(0.0, 99, (0.0,)), "refresh")
    torch.testing.assert_close(run(model, 3, always)[0], run(model, 3, Policy("off"))[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("held", [1, 2, 3])
def test_teacache_continues_and_holds_frames(model, held):
    given = {"prefix": torch.randn(4, held, 4, 4), "condition_noise_of": lambda row: torch.randn(4, held, 4, 4)}
    latents, visits, _ = run(model, 3, TEACACHE, **given)
    assert latents.isfinite().all() and any(not visit.decision.compute for visit in visits)


def test_exact_over_a_continuation(model):
    """Reuse off, clean refresh on: block-causal vanilla.

    A noised prefix is where they part: vanilla forwards it, and finished chunks after it, with fresh noise at every
    row. `renoise` does the first of the two.
    """

    def noise_of(row):
        return torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(row))

    prefix = torch.randn(4, 2, 4, 4)
    once, every = (Policy("flowcache", None, "refresh", renoise) for renoise in (False, True))
    errors = {}
    for timestep, policy in ((0.0, once), (20.0, once), (20.0, every)):
        settings = replace(SETTINGS, condition_noise=timestep)
        given = {"settings": settings, "prefix": prefix, "condition_noise_of": noise_of}
        ours, off = (run(model, 4, each, **given)[0] for each in (policy, Policy("off")))
        errors[timestep, policy.renoise] = (ours - off).abs().max().item()
    assert errors[0.0, False] < 2e-5
    assert errors[20.0, True] < errors[20.0, False] / 5


KEPT = {
    "recent": (2, None),
    "sink": (2, Sink(1, 1)),
    "tokens": (2, Compression()),
    "frames": (2, Compression(by="frame")),
    "chunks": (1, Compression(by="chunk")),
}


@pytest.mark.parametrize(("clean", "compression"), KEPT.values(), ids=KEPT)
def test_storage_is_flat_once_the_budget_is_reached(model, clean, compression):
    """Peak bytes of K/V by history length; the full history's grow with it."""
    settings = SamplerSettings(steps=3, shift=3.0, guidance=1.0, ar_step=3, chunk=2, fps=24)
    policy = Policy("budget", None, "refresh", clean=clean, compression=compression)
    measured = {}
    for chunks in (5, 20, 80):
        latents, visits, measured[chunks] = run(model, chunks, policy, settings)
        assert latents.isfinite().all()
        assert max(visit.seen for visit in visits) <= (clean + 1) * TOKENS
    assert measured[5] == measured[20] == measured[80] == (clean + 1) * chunk_bytes(model)
    assert run(model, 20, Policy("all", None, "refresh"), settings)[2] == 20 * chunk_bytes(model)


def chunk_bytes(model):
    return 2 * model.layers * TOKENS * model.heads * model.head_dim * 4


def test_a_sink_is_more_than_the_window_alone(model):
    recent = Policy("recent", None, "refresh", clean=2)
    sink = Policy("sink", None, "refresh", clean=2, compression=Sink(1, 1))
    short, long = (tuple(run(model, n, policy)[0] for policy in (recent, sink)) for n in (3, 6))
    torch.testing.assert_close(*short, atol=1e-5, rtol=0)  # three chunks: nothing is forgotten yet
    assert (long[0] - long[1]).abs().max() > 1e-4
