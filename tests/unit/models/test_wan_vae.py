"""The Wan VAE adapter against diffusers' own encode and decode, on a tiny random model."""

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from safetensors.torch import save_file

from benchmarks.memory import extra_memory
from flowcache.families.codecs import load_codec
from flowcache.models.wan_vae import WanCodec, diffusers_name
from tests.published import official_vae


@pytest.fixture(scope="module")
def vae():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=4).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def latents():
    return torch.randn(16, 7, 4, 6, generator=torch.Generator().manual_seed(1))


def whole(vae, latents):
    """All at once, by diffusers."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    return vae.decode(latents[None] * std + mean).sample[0]


@pytest.mark.parametrize("cuts", [[7], [1, 6], [5, 2], [2, 2, 2, 1], [1] * 7])
def test_streams_without_a_seam(vae, latents, cuts):
    decode = WanCodec(vae).stream()
    parts = [decode(part) for part in latents.split(cuts, dim=1)]
    assert [part.shape[1] for part in parts] == [4 * n - 3 * (i == 0) for i, n in enumerate(cuts)]
    assert (torch.cat(parts, dim=1) - whole(vae, latents)).abs().max() < 1e-6


def test_streams_are_independent(vae, latents):
    codec = WanCodec(vae)
    one, other = codec.stream(), codec.stream()
    first = one(latents[:, :3])
    other(-latents)
    assert torch.equal(torch.cat([first, one(latents[:, 3:])], dim=1), codec.stream()(latents))


def test_encodes_as_diffusers(vae):
    video = torch.rand(3, 9, 32, 48) * 2 - 1
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    expected = (vae.encode(video[None]).latent_dist.mode() - mean) / std
    codec = WanCodec(vae)
    assert torch.allclose(codec.encode(video), expected[0], atol=1e-6)
    assert codec.encode(video[:, :1]).shape == (16, 1, 4, 6)
    with pytest.raises(ValueError, match=r"\[3, 8, 32, 48\]"):
        codec.encode(video[:, :8])


def test_tiles_stream_alike_and_stay_close(vae):
    latents = torch.randn(16, 3, 18, 25, generator=torch.Generator().manual_seed(2))
    codec = WanCodec(vae, tile=128)
    decode = codec.stream()
    parts = torch.cat([decode(latents[:, :1]), decode(latents[:, 1:])], dim=1)
    assert torch.equal(parts, codec.stream()(latents))
    expected = whole(vae, latents)
    assert parts.shape == expected.shape
    far = slice(8, 40)  # inside the first tile, away from its edges
    assert (parts - expected).abs().mean() < 0.5 * expected.std()
    assert (parts[:, 0, far, far] - expected[:, 0, far, far]).abs().mean() < 0.5 * expected.std()


def test_tiles_need_less_memory(vae):
    latents = torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    whole_frame, tiled = (extra_memory(lambda codec=codec: codec.stream()(latents)) for codec in
                          (WanCodec(vae), WanCodec(vae, tile=64)))  # fmt: skip
    assert tiled < 0.6 * whole_frame


def test_a_tile_as_large_as_the_frame_changes_nothing(vae, latents):
    assert torch.equal(WanCodec(vae, tile=64).stream()(latents), WanCodec(vae).stream()(latents))
    with pytest.raises(ValueError, match="64"):
        WanCodec(vae, tile=100)


def test_both_layouts_load_identically(vae, latents, tmp_path):
    vae.save_pretrained(tmp_path / "vae")
    official = official_vae(vae.state_dict())
    torch.save(official, tmp_path / "Wan2.1_VAE.pth")
    expected = WanCodec(vae).stream()(latents)
    for path in ("vae", "Wan2.1_VAE.pth"):
        assert torch.equal(load_codec(tmp_path / path).stream()(latents), expected)


def test_names_translate_as_diffusers_converts_them(vae):
    official = official_vae(vae.state_dict())
    theirs = convert_wan_vae_to_diffusers({name: name for name in official})
    assert {name: diffusers_name(name) for name in official} == {old: new for new, old in theirs.items()}
    assert set(theirs) == set(vae.state_dict())


def test_half_precision_is_close_and_gives_float32(vae, tmp_path, latents):
    vae.save_pretrained(tmp_path / "vae")
    full, half = (load_codec(tmp_path / "vae", dtype=dtype) for dtype in ("auto", "bf16"))
    expected, pixels = full.stream()(latents), half.stream()(latents)
    assert expected.dtype == pixels.dtype == torch.float32
    assert 0 < (pixels - expected).norm() < 0.1 * expected.norm()  # of random weights
    video = expected[:, :5]
    assert half.encode(video).dtype == torch.float32
    assert 0 < (half.encode(video) - full.encode(video)).norm() < 0.05 * full.encode(video).norm()


def test_half_precision_on_disk_computes_in_full(vae, tmp_path, latents):
    vae.save_pretrained(tmp_path / "vae")
    weights = {name: tensor.bfloat16() for name, tensor in vae.state_dict().items()}
    save_file(weights, tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    assert load_codec(tmp_path / "vae").stream()(latents).dtype == torch.float32
