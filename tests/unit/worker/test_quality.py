"""Spoilt chunks are recognised, and drawings in pure colours are not taken for them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.worker.quality import flaw

SIZE = 64


def drawing(background, colour, frames=8, step=2) -> np.ndarray:
    """A square that moves over a plain background; uint8 [T, H, W, 3]."""
    made = np.tile(np.array(background, dtype=np.uint8), (frames, SIZE, SIZE, 1))
    for index in range(frames):
        made[index, 20:36, 10 + step * index : 26 + step * index] = colour
    return made


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), (0, 0, 255), (90, 120, 40)])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (0, 0, 0), (30, 200, 80)])
def test_a_moving_drawing_has_no_flaw(background, colour):
    if background != colour:
        assert flaw(drawing(background, colour)) is None


def test_what_never_moves_is_frozen():
    assert flaw(drawing((90, 120, 40), (255, 0, 0), step=0)) == "frozen"
    assert flaw(drawing((90, 120, 40), (255, 0, 0), frames=1)) is None  # one frame cannot move


@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_dark_noise_is_black(ceiling, seed):
    assert flaw(np.random.default_rng(seed).integers(0, ceiling + 1, (4, 16, 16, 3)).astype(np.uint8)) == "black"


def test_a_spark_is_enough_not_to_be_black():
    assert flaw(drawing((0, 0, 0), (200, 200, 200))) is None


@given(st.integers(0, 2**32 - 1))
def test_noise_at_both_ends_is_saturated(seed):
    noise = np.random.default_rng(seed).integers(0, 2, (4, 16, 16, 3)).astype(np.uint8) * 255
    assert flaw(noise) == "saturated"


@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 255), (254, 1, 0)])
def test_one_pure_colour_and_nothing_else_is_saturated(colour):
    assert flaw(drawing(colour, colour)) == "saturated"


def test_noise_in_the_middle_of_the_range_is_not_told_from_a_picture():
    noise = np.random.default_rng(0).integers(60, 190, (4, 16, 16, 3)).astype(np.uint8)
    assert flaw(noise) is None
