"""Pictures of 16 bits and of floats: scaled, or refused with their range."""

import numpy as np
import pytest
from PIL import Image

from flowcache.errors import MediaError
from flowcache.inputs import media
from flowcache.inputs.media import load_image, probe_media
from flowcache.inputs.sandbox import Sandbox
from tests.unit.inputs.tiffs import float_tiff

RAMP = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (32, 1))  # [32, 64], black on the left
SHOWN = (RAMP * 255 + 0.5).astype(np.uint8)


def load(path) -> np.ndarray:
    assert probe_media(str(path), "image", "").width == 64
    return load_image(str(path), 64, 32)[0]


@pytest.mark.parametrize("form", ["png", "tif"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path, form):
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(tmp_path / f"a.{form}")
    found = load(tmp_path / f"a.{form}").astype(int)
    assert np.abs(found - SHOWN[..., None]).max() <= 1 and found.min() == 0 and found.max() == 255


def test_colour_of_16_bits_is_scaled_and_not_clipped(tmp_path):
    """Written by libav: PIL writes none."""
    import av

    pixels = np.stack([RAMP, 1 - RAMP, RAMP / 2], -1)
    for name, codec in (("a.png", "png"), ("a.tif", "tiff")):
        with av.open(str(tmp_path / name), "w", format="image2") as out:
            stream = out.add_stream(codec, rate=1)
            stream.width, stream.height, stream.pix_fmt = 64, 32, "rgb48be" if codec == "png" else "rgb48le"
            deep = (pixels * 65535).astype(np.uint16)
            frame = av.VideoFrame.from_ndarray(deep, format="rgb48le").reformat(format=stream.pix_fmt)
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        assert np.abs(load(tmp_path / name).astype(int) - pixels * 255).max() <= 1


def test_grey_floats_from_0_to_1_are_black_to_white(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.tif")
    assert np.abs(load(tmp_path / "a.tif").astype(int) - SHOWN[..., None]).max() <= 1
    Image.fromarray(RAMP * 1.003 - 0.0015).save(tmp_path / "b.tif")  # as scaling leaves it
    assert load(tmp_path / "b.tif").max() == 255


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colour_floats_from_0_to_1_are_black_to_white(tmp_path, order, alpha):
    colours = np.stack([RAMP, 1 - RAMP, RAMP / 2], -1)
    pixels = np.concatenate([colours, np.full((32, 64, 1), 0.5, np.float32)], -1) if alpha else colours
    (tmp_path / "a.tif").write_bytes(float_tiff(pixels, order))
    wanted = (colours * 0.5 + 0.5 if alpha else colours) * 255
    assert np.abs(load(tmp_path / "a.tif").astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(0, 255, "has floats from 0 to 255"), (0, 14.5, "has floats from 0 to 14.5"),
     (-1, 1, "has floats from -1 to 1"),
     (0, float("inf"), "has floats from 0 to inf"),
     (0, float("nan"), "has floats from nan to nan|has pixels that are")],
)  # fmt: skip
def test_other_floats_are_refused_with_their_range(tmp_path, low, high, says, colour):
    pixels = RAMP * 0 + low
    pixels[5:, 5:] = high
    if colour:
        (tmp_path / "a.tif").write_bytes(float_tiff(np.stack([pixels] * 3, -1)))
    else:
        Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(MediaError, match=rf"({says}).*; accepted: floats from 0 \(black\) to 1 \(white\)"):
        load_image(str(tmp_path / "a.tif"), 64, 32)


def test_what_is_wrong_is_told_from_the_child_too_and_its_size_before_it_is_decoded(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(float_tiff(np.full((32, 64, 3), 2, np.float32)))
    with Sandbox(most=1) as sandbox, pytest.raises(MediaError, match="has floats from 2 to 2; accepted: floats"):
        sandbox.image(str(tmp_path / "a.tif"), 64, 32)
    monkeypatch.setattr(media, "PIXEL_LIMIT", 1000)
    with pytest.raises(MediaError, match="has 64x32 pixels; accepted: at most"):
        load_image(str(tmp_path / "a.tif"), 64, 32)


def test_a_tiff_cut_short_is_no_picture(tmp_path):
    data = float_tiff(np.stack([RAMP] * 3, -1))
    for length in (4, 20, 150, len(data) // 2):
        (tmp_path / "a.tif").write_bytes(data[:length])
        with pytest.raises(MediaError, match="is no picture that can be opened|is a damaged picture"):
            load_image(str(tmp_path / "a.tif"), 64, 32)
