"""The refiner that redraws edges: what it reads off pictures, and what it leaves alone."""

import json
from random import Random

import pytest
import torch

from flowcache.bench.shapes import COLOURS, SIZE, Scene, render, render_ground, sample_scene
from flowcache.errors import InputError
from flowcache.families.codecs import PatchCodec, load_codec
from flowcache.families.refiners import EdgeRefiner, PatchRefiner, shaded_ground, shape_colour, share_of
from training.codec import fit_codec, noisy_psnr, save_codec


def colour_of(name):
    return torch.tensor(COLOURS[name])[None, :, None, None, None] / 127.5 - 1


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_reads_colours_off_pictures(noise):
    """Of any scene, however large its shape is and wherever it lies: all 40, white's saturated end included."""
    rng = Random(0)
    for _ in range(40):
        scene = sample_scene(rng, continued=True)
        video = render(scene, 4)[None]
        ground = shaded_ground(video + noise * torch.randn(video.shape, generator=torch.Generator().manual_seed(1)))
        assert (ground - render_ground(scene)).abs().max() < 0.04
        axis = shape_colour(video - ground)
        wanted = colour_of(scene.colour) - render_ground(scene)[None]
        assert (axis - wanted.mean((2, 3, 4), keepdim=True)).norm() < 0.15


def test_a_picture_without_a_shape_stays_so():
    refiner = EdgeRefiner(4, 8, 8).requires_grad_(False)
    for name in COLOURS:
        ground = render_ground(Scene("circle", "red", name, "still", 0, 0, 1, 0))[None].expand(1, 3, 4, SIZE, SIZE)
        assert (refiner(ground, ground) - ground).abs().max() < 0.05


def test_a_third_colour_stays():
    """More of it than noise of the latents brings."""
    refiner = EdgeRefiner(4, 8, 8).requires_grad_(False)
    video = render(Scene("square", "red", "white", "still", 20.0, 20.0, 12.0, 0), 4)[None]
    video[..., 44:60, 44:60] = colour_of("blue")
    assert (refiner(video, video)[..., 46:58, 46:58] - colour_of("blue")).abs().max() < 0.35


def test_share_is_that_of_the_mixture():
    axis, mixed = torch.randn(3, 3, 1, 1, 1), torch.rand(3, 1, 4, 8, 8)
    assert torch.allclose(share_of(axis, mixed * axis), mixed * (axis.square().sum(1, keepdim=True) / 0.1).clamp(max=1))


@pytest.mark.parametrize("causal", [True, False])
def test_edges_are_sharper_before_any_training(causal):
    """In dB, where the latents are noisy; where they are not nothing is lost."""
    linear = fit_codec(videos=60)
    linear.causal = causal
    refined = PatchCodec(linear.channels, hidden=8, causal=causal)
    refined.load_state_dict(linear.state_dict(), strict=False)
    torch.nn.init.zeros_(refined.refiner.out.weight)
    torch.nn.init.zeros_(refined.refiner.out.bias)
    refined.requires_grad_(False)
    for noise, gain in ((0.0, -0.1), (0.2, 1.0), (0.3, 2.0)):
        assert noisy_psnr(refined, noise) > noisy_psnr(linear, noise) + gain


def test_checkpoints_from_before_load(tmp_path):
    """They don't say what is refined: patches."""
    torch.manual_seed(0)
    old = PatchCodec(24, hidden=8, refines="patches").requires_grad_(False)
    save_codec(old, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("refines") == "patches"
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_codec(tmp_path)
    latents = torch.randn(24, 3, 4, 4)
    assert isinstance(loaded.refiner, PatchRefiner)
    assert torch.allclose(loaded.decode(latents), old.decode(latents), atol=2e-2)
    config["refines"] = "corners"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="refines: got 'corners'; accepted: edges, patches"):
        load_codec(tmp_path)
