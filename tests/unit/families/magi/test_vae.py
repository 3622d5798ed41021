"""MAGI-1's VAE as a codec: frames, streaming, tiles, loading; what it computes is in tests/parity."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from flowcache.errors import InputError
from flowcache.families.codecs import codec_part, load_codec
from flowcache.families.magi.tiling import Tiling
from flowcache.families.magi.vae import ViTVAE
from flowcache.families.magi.vae_codec import SCALE, MagiCodec
from flowcache.families.magi.vae_config import ViTVAEConfig, vae_config

TINY = ViTVAEConfig(
    z_chans=4, embed_dim=32, depth=1, num_heads=2, patch_size=2, patch_length=4, video_size=16, video_length=16
)
DDCONFIG = {
    "z_chans": 4, "embed_dim": 32, "depth": 1, "num_heads": 2, "mlp_ratio": 4, "patch_size": 2, "patch_length": 4,
    "video_size": 16, "video_length": 16, "in_chans": 3, "double_z": True, "qkv_bias": True, "with_cls_token": True,
    "norm_code": False, "ln_in_attn": True, "conv_last_layer": True, "use_rope": False, "use_final_proj": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def vae():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = ViTVAE(TINY).eval().requires_grad_(False)
    for half in (made.encoder, made.decoder):
        half.pos_embed.normal_()
        half.cls_token.normal_()
    return made


@pytest.fixture
def folder(vae, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "ViTVAE", "ddconfig": DDCONFIG}))
    save_file(vae.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    return tmp_path


def latents(frames, rows=6, columns=6, seed=0):
    return torch.randn(4, frames, rows, columns, generator=torch.Generator().manual_seed(seed))


def video(frames, height=12, width=12, seed=0):
    return torch.rand(3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@given(frames=st.integers(1, 9))
def test_a_latent_frame_is_always_four_frames(vae, frames):
    assert MagiCodec(vae).stream()(latents(frames)).shape == (3, 4 * frames, 12, 12)


def test_sixteen_frames_of_four_latent_frames(vae):
    """Where a prefix of 2 left 4 of a chunk; the official code gave 13. The first 13 are the same."""
    codec = MagiCodec(vae)
    pixels = codec.decode(latents(4))
    assert pixels.shape[1] == 16
    assert torch.equal(pixels[:, 12:], codec.decode(latents(4)[:, 3:]))


@pytest.mark.parametrize(
    ("fps", "frames"),
    [
        (1, 12),
        (8, 12),
        (12, 12),
        (15, 12),
        (16, 8),
        (23, 8),
        (24, 12),
        (25, 12),
        (30, 12),
        (32, 16),
        (48, 24),
        (120, 60),
    ],
)
def test_temporal_tiles_are_half_a_second(vae, fps, frames):
    """In whole latent frames; where that is one, as at 24 fps."""
    codec = MagiCodec(vae, 32).at(fps)
    assert codec.tile == (frames, 32, 32)
    whole = codec.stream()(latents(6))
    cut = [codec.decode(part) for part in latents(6).split(frames // 4, dim=1)]
    assert torch.equal(whole, torch.cat(cut, dim=1).clamp(-1, 1))


def test_one_tile_is_the_plain_decoder(vae):
    """Up to three quarters of a tile, and three latent frames: no tile to fade into."""
    z, x = latents(3), video(12)
    codec = MagiCodec(vae)
    assert torch.equal(codec.decode(z), vae.decoder(z[None] / SCALE)[0])
    assert torch.equal(codec.encode(x), vae.mean(x[None])[0] * SCALE)
    larger = latents(3, 8, 8)
    assert torch.equal(MagiCodec(vae, tile=24).decode(larger), vae.decoder(larger[None] / SCALE)[0])
    assert not torch.equal(MagiCodec(vae).decode(larger), vae.decoder(larger[None] / SCALE)[0])


@pytest.mark.parametrize("cuts", [[12], [6, 6], [3, 9], [3, 3, 3, 3], [6, 3, 3]])
@pytest.mark.parametrize("rows", [6, 11])
def test_streams_without_a_seam(vae, cuts, rows):
    """Chunks of whole temporal tiles give what they give at once."""
    decode = MagiCodec(vae).stream()
    z = latents(12, rows)
    parts = torch.cat([decode(part) for part in z.split(cuts, dim=1)], dim=1)
    assert torch.allclose(parts, MagiCodec(vae).stream()(z), atol=1e-6)


def test_what_comes_together_shares_tiles(vae):
    """Cut inside a temporal tile, each part is a tile of its own: as a first chunk beside a prefix."""
    decode, z = MagiCodec(vae).stream(), latents(10)
    parts = torch.cat([decode(z[:, :4]), decode(z[:, 4:])], dim=1)
    assert torch.equal(parts, torch.cat([decode(z[:, a:b]) for a, b in ((0, 3), (3, 4), (4, 7), (7, 10))], dim=1))


def test_a_picture_is_one_latent_frame(vae):
    codec, picture = MagiCodec(vae), video(1)
    assert codec.encode(picture).shape == (4, 1, 6, 6)
    assert torch.equal(codec.encode(picture), codec.encode(picture.expand(-1, 4, -1, -1)))


@pytest.mark.parametrize("shape", [(3, 6, 12, 12), (3, 0, 12, 12), (3, 4, 11, 12), (3, 4, 12, 13)])
def test_refuses_what_does_not_fit_the_grid(vae, shape):
    with pytest.raises(ValueError, match=r"cannot encode .*\[3, "):
        MagiCodec(vae).encode(torch.zeros(shape))


def test_refuses_tiles_whose_seams_are_no_whole_patches(vae):
    for options, message in ({"tile": 12}, "multiple of 8, not 12"), ({"frames": 6}, "multiple of 4, not 6"):
        with pytest.raises(ValueError, match=message):
            MagiCodec(vae, **options)


@given(
    sides=st.tuples(st.integers(1, 70), st.integers(1, 70)), frames=st.integers(1, 9), chained=st.booleans(),
    tile=st.sampled_from([8, 16, 32]), factor=st.sampled_from([1, 2]),
)  # fmt: skip
def test_tiles_of_a_pointwise_function_leave_no_trace(sides, frames, chained, tile, factor):
    """Whatever does not look beyond a place gives the same in tiles, of every size."""
    x = torch.rand(2, frames, *sides, generator=torch.Generator().manual_seed(frames))

    def enlarge(piece):
        return piece.repeat_interleave(factor, 2).repeat_interleave(factor, 3) * 3

    found = Tiling(2, tile, tile, chained=chained).run(enlarge, x)
    assert torch.allclose(found, enlarge(x), atol=1e-6)


def test_tiles_fade_linearly():
    """Two tiles of constant values: the second begins in the middle of nothing else than the seam."""
    values = iter((0.0, 1.0, 1.0))
    joined = Tiling(1, 8, 8).run(lambda piece: torch.full_like(piece, next(values)), torch.zeros(1, 1, 6, 14))
    assert joined[0, 0, 0].tolist() == [0] * 6 + [0, 0.5] + [1] * 6


def test_loads_in_the_published_layout(vae, folder):
    codec = load_codec(folder)
    assert isinstance(codec, MagiCodec) and codec.tile == (12, 16, 16)
    assert torch.equal(codec.decode(latents(3)), MagiCodec(vae).decode(latents(3)))
    assert load_codec(folder, tile=8).tile == (12, 8, 8)
    part = codec_part(folder)
    assert part.problems() == [] and part.numbers == sum(math.prod(p.shape) for p in vae.parameters())


def test_half_precision_on_disk_computes_in_full(vae, folder):
    save_file({n: t.bfloat16() for n, t in vae.state_dict().items()}, folder / "diffusion_pytorch_model.safetensors")
    assert load_codec(folder).decode(latents(1)).dtype == torch.float32


DAMAGE = {
    "missing": (lambda state: state.pop("decoder.proj_in.weight"), "decoder.proj_in.weight: is missing"),
    "shape": (
        lambda state: state.update({"encoder.pos_embed": torch.zeros(1, 9, 32)}),
        r"encoder.pos_embed: has shape \[1, 9, 32\], the config asks for \[1, 257, 32\]",
    ),
    "unknown": (lambda state: state.update({"encoder.other": torch.zeros(1)}), "encoder.other: is no tensor"),
    "dtype": (
        lambda state: state.update({"decoder.cls_token": torch.zeros(1, 1, 32, dtype=torch.int8)}),
        "decoder.cls_token: has dtype I8",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_are_named(folder, damage):
    change, message = DAMAGE[damage]
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file)
    with pytest.raises(InputError, match=message):
        load_codec(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_rope": True}, r"ddconfig.use_rope: is True; accepted: False"),
        ({"ln_in_attn": None}, r"ddconfig.ln_in_attn: is None; accepted: True"),
        ({"depth": 0}, r"ddconfig.depth: is 0; accepted: a number above 0"),
        ({"z_chans": "16"}, r"ddconfig.z_chans: is '16'; accepted: a number above 0"),
        ({"depth": 1.5}, r"ddconfig.depth: is 1.5"),
        ({"embed_dim": 40}, r"ddconfig.embed_dim: is 40; accepted: multiples of 16"),
        ({"video_size": 15}, r"ddconfig.video_size: is 15; accepted: multiples of 2"),
    ],
)
def test_other_configs_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        vae_config({"ddconfig": DDCONFIG | change}, tmp_path / "config.json")


def test_a_config_without_sizes_is_refused(tmp_path):
    with pytest.raises(InputError, match="ddconfig: is missing"):
        vae_config({"_class_name": "ViTVAE"}, tmp_path / "config.json")


def test_published_switches_may_be_left_out(tmp_path):
    left = {name: value for name, value in DDCONFIG.items() if name not in ("use_rope", "use_final_proj", "double_z")}
    assert vae_config({"ddconfig": left}, tmp_path / "config.json") == vae_config({"ddconfig": DDCONFIG}, tmp_path)
