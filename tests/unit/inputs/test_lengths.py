"""The lengths and sizes that models can render, against a plain list of all of them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.families.magi.pipeline import Pipeline
from flowcache.inputs.lengths import near_frames, near_sides, near_sizes, round_frames
from flowcache.records import ModelSpec

TINY = ModelSpec("tiny", "skyreels", "p", "d", chunk=3, window=15, overlap=3, channels=16)
REAL = ModelSpec("real", "skyreels", "p", "d", chunk=5, window=25, overlap=5, channels=16)
WHOLE = ModelSpec("whole", "magi", "p", "d", chunk=6, window=24, overlap=6, channels=16, causal=False)
MOST = 1000
LENGTHS = [  # (model, fresh, all its lengths)
    (TINY, True, list(range(9, MOST + 1, 12))),
    (TINY, False, list(range(12, MOST + 1, 12))),
    (REAL, True, list(range(17, MOST + 1, 20))),
    (REAL, False, list(range(20, MOST + 1, 20))),
    (WHOLE, True, list(range(24, MOST + 1, 24))),
    (WHOLE, False, list(range(24, MOST + 1, 24))),
]
kinds = st.sampled_from(LENGTHS)


def test_the_default_length_of_skyreels_is_valid():
    assert near_frames(97, REAL, True, MOST) == [97] and near_frames(80, REAL, False, MOST) == [80]


def test_what_latent_frames_show():
    """The first latent frame of a causal codec is one frame, of another as many as the rest."""
    assert [REAL.video_frames(n) for n in (1, 2, 5, 25)] == [1, 5, 17, 97]
    assert [WHOLE.video_frames(n) for n in (1, 2, 6, 24)] == [4, 8, 24, 96]
    assert (WHOLE.first_chunk_frames, WHOLE.chunk_frames, WHOLE.overlap_frames) == (24, 24, 24)


def test_what_nothing_continues_has_any_length_with_magi():
    chunked = replace(WHOLE, pipeline=Pipeline())
    assert near_frames(97, chunked, True, MOST, ends=True) == [97] and round_frames(0.2, chunked, True, ends=True) == 1
    assert near_frames(97, chunked, True, MOST) == [96, 120] and round_frames(97, chunked, True) == 96


@given(kinds, st.integers(-50, 2 * MOST))
def test_near_frames_are_the_neighbours_in_the_list(kind, frames):
    spec, fresh, valid = kind
    around = [
        max((v for v in valid if v <= frames), default=None),
        min((v for v in valid if v >= frames), default=None),
    ]
    assert near_frames(frames, spec, fresh, MOST) == sorted({v for v in around if v is not None})


@given(kinds, st.floats(0, MOST - 30))
def test_rounded_frames_are_valid_and_none_is_nearer(kind, frames):
    spec, fresh, lengths = kind
    rounded = round_frames(frames, spec, fresh)
    assert rounded in lengths
    assert all(abs(rounded - frames) <= abs(length - frames) + 1e-9 for length in lengths)


def test_of_two_equally_near_lengths_the_longer_is_taken():
    assert round_frames(15, TINY, True) == 21 and round_frames(18, TINY, False) == 24


@given(st.integers(-100, 500))
def test_near_sides_are_the_neighbouring_multiples(pixels):
    valid = range(16, 401, 16)
    around = [
        max((v for v in valid if v <= pixels), default=None),
        min((v for v in valid if v >= pixels), default=None),
    ]
    assert near_sides(pixels, TINY, 400) == sorted({v for v in around if v is not None})


@pytest.mark.parametrize(("asked", "nearest"), [((100, 60), (96, 64)), ((1, 1), (64, 64)), ((64, 90), (64, 96))])
def test_known_sizes_come_nearest_first(asked, nearest):
    sizes = ((64, 64), (96, 64), (64, 96))
    spec = ModelSpec("tiny", "skyreels", "p", "d", chunk=3, window=15, overlap=3, channels=16, sizes=sizes)
    found = near_sizes(*asked, spec)
    assert found[0] == nearest and sorted(found) == sorted(sizes)
