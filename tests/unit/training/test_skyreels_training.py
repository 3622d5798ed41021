"""What `tiny-skyreels` is trained on is what its sampler shows it."""

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.bench.shapes import WORLD
from flowcache.families.codecs import PatchCodec
from training.codec import CHANNELS
from training.scenes import Mix
from training.skyreels.loss import LENGTHS, draw, together
from training.skyreels.model import CHUNK
from training.skyreels.noise import PREFIX_SIGMA, Shares, sample_sigmas


@given(st.integers(0, 10**6), st.integers(2, 5))
@settings(deadline=None)
def test_sigmas(seed, chunks):
    prefix = torch.arange(64) % 2 == 0
    sigma, learned = sample_sigmas(prefix, chunks * CHUNK, CHUNK, torch.Generator().manual_seed(seed))
    assert sigma.shape == learned.shape == (64, chunks * CHUNK)
    assert sigma.min() >= 0 and sigma.max() <= 0.999
    assert (sigma[learned] > 0).all()
    assert not learned[prefix, :CHUNK].any() and (sigma[prefix, :CHUNK] <= PREFIX_SIGMA).all()
    assert learned[prefix, CHUNK:].float().mean() > 0.2
    later = sigma[:, 1:].unflatten(1, (-1, 1))[:, CHUNK - 1 :].flatten(1).unflatten(1, (chunks - 1, CHUNK))
    assert (later == later[:, :, :1]).all()  # one level for each chunk, but for an image's frame
    image = (sigma[:, 0] == 0) & (sigma[:, 1] > 0)
    assert not learned[image, 0].any() and learned[image, 1].all() and not (image & prefix).any()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shares_of_levels(share):
    """Rows with all chunks at one level; independent ones have later chunks less noisy than earlier ones at times."""
    none, seed = torch.zeros(600, dtype=torch.bool), torch.Generator().manual_seed(0)
    one, _ = sample_sigmas(none, 9, 3, seed, Shares(together=share, independent=0, image=0))
    assert (one == one[:, :1]).all(1).float().mean() == pytest.approx(share, abs=0.06)
    free, _ = sample_sigmas(none, 9, 3, seed, Shares(together=0, independent=share, image=0))
    assert (free[:, 5] < free[:, 2] - 1e-6).float().mean() >= 0.4 * share  # the staircase never is so, once begun


def test_single_frames_are_all_learned():
    sigma, learned = sample_sigmas(torch.zeros(500, dtype=torch.bool), 1, 1, torch.Generator().manual_seed(0))
    assert learned.all() and sigma.min() > 0


def test_rows_follow_from_the_seed_alone():
    codec, length = PatchCodec(CHANNELS), LENGTHS["2"]
    rows = [[draw(length, Mix(WORLD), Shares(), codec, Random(seed)) for seed in seeds] for seeds in ((7, 8), (8, 7))]
    one, other = map(together, rows)
    assert torch.equal(one.latents, other.latents.flip(0)) and torch.equal(one.noise, other.noise.flip(0))
    assert torch.equal(one.sigma, other.sigma.flip(0)) and one.captions == other.captions[::-1]
    assert not torch.equal(one.latents[0], one.latents[1]) and one.latents.shape == (2, CHANNELS, 6, 8, 8)
