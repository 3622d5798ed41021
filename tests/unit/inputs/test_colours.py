"""Pictures with profiles, videos of other pixels and brightness: as people see them, or refused by name."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from flowcache.errors import MediaError
from flowcache.inputs.media import load_clip, load_image, probe_media

GREY = ImageCms.createProfile("LAB", 6500)


def shown(tmp_path, colour, **save) -> list[int]:
    """What a picture of one colour becomes."""
    Image.new("RGB", (64, 64), colour).save(tmp_path / "a.png", **save)
    return load_image(str(tmp_path / "a.png"), 64, 64)[0, 32, 32].tolist()


def swapped() -> bytes:
    """sRGB with red and green in each other's place."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    tags = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = data[green + 4 : green + 12], data[red + 4 : red + 12]
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def test_profiles_come_to_srgb(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert shown(tmp_path, (255, 0, 0)) == shown(tmp_path, (255, 0, 0), icc_profile=srgb) == [255, 0, 0]
    red, green, blue = shown(tmp_path, (255, 0, 0), icc_profile=swapped())
    assert green > 240 and red < 15 and blue < 15
    assert shown(tmp_path, (9, 8, 7), icc_profile=b"no profile") == [9, 8, 7]
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / "b.png", icc_profile=swapped())
    assert load_image(str(tmp_path / "b.png"), 64, 64)[0, 0, 0].tolist() == [255, 255, 255]


def video(path, ratio=None, transfer: int | None = None):
    """Four frames of 64x32, the left half white."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        if ratio:
            stream.codec_context.sample_aspect_ratio = ratio
        if transfer:
            stream.codec_context.color_trc = transfer
        for _ in range(4):
            pixels = np.zeros((32, 64, 3), np.uint8)
            pixels[:, :32] = 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    return str(path)


def test_pixels_that_are_no_squares_are_made_such(tmp_path):
    def row(name, ratio):
        clip = load_clip(video(tmp_path / name, ratio), 1, 12, 64, 64, fit="pad")
        return [int(lit) for lit in clip[0, :, 8].mean(axis=1) > 128]

    assert sum(row("plain.mp4", None)) == 32
    assert sum(row("narrow.mp4", Fraction(1, 2))) == 64 or sum(row("narrow.mp4", Fraction(1, 2))) == 62
    assert sum(row("wide.mp4", Fraction(2, 1))) == 16


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused_by_name(tmp_path, transfer, name):
    url = video(tmp_path / "a.mp4", transfer=transfer)
    with pytest.raises(MediaError, match=rf"is of high dynamic range \({name}\); accepted: video of standard range"):
        probe_media(url, "video", "")
    with pytest.raises(MediaError, match=name):
        load_clip(url, 1, 12, 64, 64)
