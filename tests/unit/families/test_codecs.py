from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.errors import InputError
from flowcache.families import codecs
from flowcache.families.base import CodecKind
from flowcache.families.codecs import PatchCodec, load_codec
from training.codec import psnr, save_codec

REFINERS = [(0, "edges"), (8, "edges"), (8, "patches")]


def random_codec(refiner=REFINERS[0], channels=12, seed=0):
    torch.manual_seed(seed)
    codec = PatchCodec(channels, hidden=refiner[0], refines=refiner[1])
    codec.basis.copy_(torch.linalg.qr(torch.randn(768, channels))[0].T)
    codec.mean.normal_()
    codec.scale.uniform_(0.5, 2)
    return codec.requires_grad_(False)


def video(frames, seed=0, height=32, width=16):
    return torch.rand(3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_all_channels_lose_nothing():
    codec, original = PatchCodec(768), video(13)
    decoded = codec.stream()(codec.encode(original))
    assert torch.allclose(decoded, original, atol=1e-6)


def test_layout_of_a_patch():
    """Channel (colour, time, row, column) of the whole basis is that very pixel."""
    original = video(5)
    latents = PatchCodec(768).encode(original)
    assert latents.shape == (768, 2, 4, 2)
    colour, time, row, column = 1, 2, 3, 4
    channel = ((colour * 4 + time) * 8 + row) * 8 + column
    assert latents[channel, 1, 2, 1] == original[colour, 1 + time, 2 * 8 + row, 8 + column]
    assert latents[channel, 0, 2, 1] == original[colour, 0, 2 * 8 + row, 8 + column]


@pytest.mark.parametrize("refiner", REFINERS)
def test_first_latent_frame_is_one_frame(refiner):
    decode = random_codec(refiner).stream()
    latents = torch.randn(12, 1, 4, 2)
    assert decode(latents).shape == (3, 1, 32, 16)
    assert decode(latents).shape == (3, 4, 32, 16)


@given(cuts=st.lists(st.integers(1, 4), min_size=1, max_size=5), refiner=st.sampled_from(REFINERS))
@settings(deadline=None, max_examples=20)
def test_a_codec_that_is_not_causal_gives_four_frames_each(cuts, refiner):
    """As MAGI-1's: of any latent frame, in whatever pieces they come; a picture is one that holds still."""
    codec = random_codec(refiner)
    codec.causal = False
    latents = codec.encode(video(4 * sum(cuts)))
    assert latents.shape == (12, sum(cuts), 4, 2)
    whole, decode = codec.stream()(latents), codec.stream()
    pieces = torch.cat([decode(piece) for piece in latents.split(cuts, dim=1)], dim=1)
    assert whole.shape[1] == 4 * sum(cuts)
    assert torch.allclose(whole, pieces, atol=1e-5)
    picture = video(1)
    assert torch.equal(codec.encode(picture), codec.encode(picture.expand(-1, 4, -1, -1)))
    with pytest.raises(ValueError, match="cannot encode"):
        codec.encode(video(5))


@given(cuts=st.lists(st.integers(1, 4), min_size=1, max_size=5), refiner=st.sampled_from(REFINERS))
@settings(deadline=None, max_examples=20)
def test_streaming_in_pieces_gives_the_whole(cuts, refiner):
    codec = random_codec(refiner)
    latents = torch.randn(12, sum(cuts), 4, 2, generator=torch.Generator().manual_seed(sum(cuts)))
    whole = codec.stream()(latents)
    decode = codec.stream()
    pieces = torch.cat([decode(piece) for piece in latents.split(cuts, dim=1)], dim=1)
    assert whole.shape[1] == 1 + 4 * (sum(cuts) - 1)
    assert torch.allclose(whole, pieces, atol=1e-5)


@pytest.mark.parametrize("refiner", REFINERS)
def test_causal(refiner):
    codec = random_codec(refiner)
    one, other = video(13), video(13)
    other[:, 9:] = 0
    a, b = codec.encode(one), codec.encode(other)
    assert torch.equal(a[:, :3], b[:, :3]) and not torch.equal(a[:, 3], b[:, 3])
    a, b = codec.stream()(a), codec.stream()(b)
    assert torch.equal(a[:, :9], b[:, :9]) and not torch.equal(a[:, 9:], b[:, 9:])


def test_encoding_what_was_decoded_changes_nothing_more():
    """Orthonormal rows: windows can be re-encoded over and over without drifting."""
    codec = random_codec()
    latents = codec.encode(video(9) * 0.1)
    again = codec.encode(codec.stream()(latents))
    assert torch.allclose(latents[:, 1:], again[:, 1:], atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 32, 16), (5, 30, 16), (5, 32, 12)])
def test_refuses_what_does_not_fit_the_grid(shape):
    with pytest.raises(ValueError, match="cannot encode"):
        random_codec().encode(torch.zeros(3, *shape))


@pytest.mark.parametrize("refiner", REFINERS)
def test_saved_and_loaded(tmp_path, refiner):
    codec = random_codec(refiner)
    save_codec(codec, tmp_path)
    loaded = load_codec(tmp_path)
    original = video(9)
    assert torch.allclose(loaded.encode(original), codec.encode(original), atol=2e-2)
    latents = codec.encode(original)
    assert psnr(loaded.stream()(latents), codec.stream()(latents)) > 40


def test_unknown_class_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderMystery"}')
    with pytest.raises(InputError, match="AutoencoderMystery"):
        load_codec(tmp_path)


def test_auto_is_half_precision_on_a_gpu_where_the_official_program_is(monkeypatch):
    asked = {}
    part = SimpleNamespace(load=lambda device, dtype: asked.setdefault(device, dtype))
    for half, device, dtype in (
        (True, "cuda", "auto"),
        (False, "cuda:0", "auto"),
        (True, "cpu", "auto"),
        (False, "c", "bf16"),
    ):
        kind = CodecKind(lambda path, config: part, lambda module, tile: module, half)
        monkeypatch.setattr(codecs, "_opened", lambda path, kind=kind: (part, kind))
        load_codec("vae", device, dtype=dtype)
    assert asked == {"cuda": torch.bfloat16, "cuda:0": torch.float32, "cpu": torch.float32, "c": torch.bfloat16}
