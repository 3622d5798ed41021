"""MAGI-1's VAE against what the official one gave: single tiles, other sizes than learned, pictures, tiles joined."""

import pytest
import torch

from flowcache.families.magi.vae import ViTVAE
from flowcache.families.magi.vae_codec import SCALE, MagiCodec
from flowcache.families.magi.vae_config import vae_config
from flowcache.worker.renderer import to_uint8
from tests.parity.magi_runs import known

NAME = "magi_vae_tiny"
SAID = {
    "name", "kind", "mean", "note", "fps", "tile_sample_min_length", "tile_sample_min_height", "tile_sample_min_width",
    "spatial_tile_overlap_factor", "temporal_tile_overlap_factor",
}  # fmt: skip
WHOLE = 64  # a tile larger than any of the golden pictures


@pytest.fixture(scope="module")
def vae(golden):
    made = ViTVAE(vae_config(golden.facts(NAME)["config_json"], golden.folder / f"{NAME}.json"))
    made.load_state_dict(golden.tensors(f"{NAME}.weights"))
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tensors(golden):
    return golden.tensors(NAME)


def codec_of(vae, case):
    """The codec as that case was run: with the tiles that it finds for a frame rate by itself, or in one tile."""
    known(case, SAID, case["name"])
    if "tile_sample_min_length" not in case and "fps" not in case:
        return MagiCodec(vae, WHOLE, frames=WHOLE)
    assert case.get("spatial_tile_overlap_factor", 0.25) == 0.25 and case.get("temporal_tile_overlap_factor", 0) == 0
    codec = MagiCodec(vae).at(case.get("fps") or 2 * case["tile_sample_min_length"])
    sides = [case.get(f"tile_sample_min_{side}", codec.tile[1]) for side in ("height", "width")]
    assert codec.tile == (case.get("tile_sample_min_length", codec.tile[0]) // 4 * 4, *sides)
    return codec


def error(found, expected):
    assert found.shape == expected.shape
    return (found - expected).abs().max()


@pytest.mark.golden(NAME, "cases")
def test_every_case(vae, tensors, case):
    compare(vae, tensors, case)


@pytest.mark.golden("magi_vae_fps", "cases")
def test_other_frame_rates(golden, vae, case):
    compare(vae, golden.tensors("magi_vae_fps"), case)


def compare(vae, tensors, case):
    codec, name = codec_of(vae, case), case["name"]
    if "encode" in case["kind"]:
        assert error(codec.encode(tensors[f"{name}.x"][0]), tensors[f"{name}.mean"][0] * SCALE) < 1e-4
        return
    expected = tensors[f"{name}.x"][0]
    pixels = codec.decode(tensors[f"{name}.z"][0] * SCALE)
    assert pixels.shape[1] == 4 * tensors[f"{name}.z"].shape[2]  # officially 1 of a tile with one latent frame
    assert error(pixels[:, : expected.shape[1]], expected) < 1e-4


@pytest.mark.golden(NAME, "cases", only="enc_.*")
def test_moments(vae, tensors, case):
    name = case["name"]
    video = tensors[f"{name}.x"]
    video = video.expand(-1, -1, 4, -1, -1) if video.shape[2] == 1 else video
    moments = vae.encoder(video)
    deviation = (0.5 * moments.chunk(2, dim=1)[1].clamp(-30, 20)).exp()
    assert error(moments, tensors[f"{name}.moments"]) < 1e-4
    assert error(deviation, tensors[f"{name}.std"]) < 1e-4


@pytest.mark.golden(NAME, "cases", only="tiled_dec")
def test_pixels_as_written_to_a_file(vae, tensors, case):
    """Officially truncated, here rounded: half a step nearer to what the VAE said."""
    pixels = codec_of(vae, case).decode(tensors["tiled_dec.z"][0] * SCALE)
    truncated = (pixels * 127.5 + 127.5).clamp(0, 255).to(torch.uint8).transpose(0, 1).int()
    rounded = torch.from_numpy(to_uint8(pixels)).permute(0, 3, 1, 2).int()
    expected = tensors["tiled_dec.uint8"].int()
    assert ((truncated - expected) != 0).float().mean() < 1e-3  # a value on the edge of a step may fall to either side
    assert set((rounded - expected).unique().tolist()) == {0, 1}


@pytest.mark.golden(NAME, "cases", only="enc_native")
def test_inside_the_encoder(vae, tensors, case):
    found = {}
    encoder = vae.encoder
    places = {
        "patch_embed": encoder.patch_embed.proj, "block0.attn": encoder.blocks[0].attn,
        "block0.out": encoder.blocks[0], "norm": encoder.norm,
    }  # fmt: skip
    hooks = [place.register_forward_hook(lambda _, __, out, n=n: found.update({n: out})) for n, place in places.items()]
    encoder(tensors["enc_native.x"])
    for hook in hooks:
        hook.remove()
    for name, value in found.items():
        assert error(value, tensors[f"inner.enc_native.{name}"]) < 1e-4, name
