"""How pictures and videos come to size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flowcache.inputs.fit import fitted

SIDES = st.integers(1, 120)


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def bicubic(image, width, height):
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


# Worked out by hand from `resizecrop` of SkyReels-V2's image2video_pipeline.py: what is kept, in whole pixels.
@pytest.mark.parametrize(
    ("size", "wanted", "kept"),
    [
        ((96, 48), (32, 32), (24, 0, 72, 48)),
        ((48, 96), (32, 32), (0, 24, 48, 72)),
        ((100, 50), (48, 32), (12, 0, 88, 50)),  # 75 columns from 12.5 to 87.5, each rounded to even
        ((51, 100), (64, 48), (0, 31, 51, 69)),  # 38 of 100 rows
        ((64, 48), (32, 24), (0, 0, 64, 48)),
    ],
)
def test_crop_is_the_official_one(size, wanted, kept):
    image = noise(*size)
    assert np.array_equal(np.asarray(fitted(image, *wanted, "crop")), bicubic(image.crop(kept), *wanted))


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["crop", "pad", "stretch"]))
def test_any_picture_comes_to_any_size(has_width, has_height, width, height, fit):
    assert fitted(Image.new("RGB", (has_width, has_height), "red"), width, height, fit).size == (width, height)


def test_stretched_and_padded_pictures_show_all():
    image = noise(96, 48)
    assert np.array_equal(np.asarray(fitted(image, 32, 32, "stretch")), bicubic(image, 32, 32))
    padded = np.asarray(fitted(image, 32, 32, "pad"))
    assert np.array_equal(padded[8:24], bicubic(image, 32, 16))
    assert not padded[:8].any() and not padded[24:].any()
