"""The special tokens before MAGI-1's captions, and how their file is read."""

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowcache.errors import InputError
from flowcache.families.magi.captions import MARKS, Captions, SpecialTokens, read_special_tokens
from flowcache.records import RenderRequest, Shot

DIM = 8
ROWS = torch.arange(100.0)[:, None].expand(-1, DIM)  # row n holds n
WORDS = -torch.arange(1.0, 6.0)[None, :, None].expand(1, -1, DIM)


def seen(caption):
    return caption[0, :, 0].tolist()


@given(remaining=st.integers(0, 100), marks=st.sets(st.sampled_from(sorted(MARKS))), duration=st.booleans())
def test_marks_stand_before_the_words(remaining, marks, duration):
    """The last one put there, the duration, comes first; seven chunks or more are told as seven."""
    told = seen(SpecialTokens(ROWS, tuple(marks), duration).before(WORDS, remaining))
    assert told[len(told) - 5 :] == seen(WORDS)
    expected = [7 + min(remaining, 7)] * duration + [MARKS[mark] for mark in reversed(MARKS) if mark in marks]
    assert told[: len(told) - 5] == expected


def test_captions_are_cut_behind_the_special_tokens():
    captions = Captions(lambda prompt: WORDS, SpecialTokens(ROWS), length=4)
    assert seen(captions.caption("a", 2)) == [9, 1, -1, -2]
    assert seen(captions.encode("a")) == [-1, -2, -3, -4]


def test_no_prompt_is_no_caption():
    captions = Captions(lambda prompt: WORDS, SpecialTokens(ROWS))
    assert captions.caption(" ", 0) is None


def test_a_model_without_special_tokens_sees_the_words():
    assert seen(Captions(lambda prompt: WORDS.bfloat16(), None).caption("a", 3)) == seen(WORDS)


def test_the_published_file_is_rounded_to_half_precision(tmp_path):
    rows = np.random.default_rng(0).normal(size=(100, DIM))
    np.savez(tmp_path / "special_tokens.npz", caption_token=rows[:1], logo_token=rows[:1], other_tokens=rows)
    special = read_special_tokens(tmp_path / "special_tokens.npz", DIM, marks=("2d",))
    half = torch.from_numpy(rows).half().float()
    assert torch.equal(special.rows, half) and special.marks == ("2d",)
    assert torch.equal(special.negative, half[[4, 0, 0, 0]])  # borders, transitions; then logo's and caption's own


def test_the_negative_prompt_stands_before_the_null_caption_and_is_as_long():
    null, tokens = torch.full((1, 6, DIM), 0.5), torch.arange(4.0)[:, None].expand(-1, DIM)
    request = RenderRequest("v", (Shot("a", 24),), 64, 64, 24, 0, 7.5, 64, "m", {}, negative_prompt="official")
    captions = Captions(lambda prompt: WORDS, SpecialTokens(ROWS, negative=tokens))
    assert captions.negative(null) is None and captions.of(replace(request, negative_prompt="")).negative(null) is None
    assert seen(captions.of(request).negative(null)) == [0, 1, 2, 3, 0.5, 0.5]
    with pytest.raises(ValueError, match="no tokens for a negative prompt"):
        Captions(lambda prompt: WORDS, SpecialTokens(ROWS)).of(request).negative(null)


def test_a_row_says_which_tokens_its_captions_have():
    request = RenderRequest("v", (Shot("a", 24),), 64, 64, 24, 0, 7.5, 64, "m", {}, special_tokens=("2d", "duration"))
    captions = Captions(lambda prompt: WORDS, SpecialTokens(ROWS))
    assert seen(captions.of(request).caption("a", 2))[:3] == [9, 16, -1]
    assert seen(captions.of(replace(request, special_tokens=())).caption("a", 2)) == seen(WORDS)
    assert seen(captions.of(replace(request, special_tokens=None)).caption("a", 2))[:3] == [9, 1, -1]


def npz(**arrays):
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def npy(array):
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npz(logo_token=np.zeros((1, DIM))), "other_tokens: is missing"),
        (npz(other_tokens=np.zeros((100, 7))), r"is float64 \[100, 7\]; accepted: floats \[17 or more, 8\]"),
        (npz(other_tokens=np.zeros((16, DIM))), r"\[16, 8\]; accepted"),
        (npz(other_tokens=np.zeros((100, DIM), int)), r"is int64"),
        (npz(other_tokens=np.zeros((17, DIM)), logo_token=np.zeros((1, 7))), r"logo_token: is float64 \[1, 7\]"),
        (npz(other_tokens=np.array([{}], object)), "can't be read as arrays without code"),
        (npy(np.zeros((100, DIM))), "is of no known format, or damaged; accepted: an .npz of arrays"),
        (pickle.dumps({"other_tokens": 1}), "is a pickle .* was not run; accepted: an .npz of arrays"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "is a Git LFS pointer"),
        (npz(other_tokens=np.zeros((100, DIM)))[:-30], "can't be read"),
        (b"", "is empty"),
    ],
)
def test_damaged_files_are_named(tmp_path, data, message):
    file = tmp_path / "special_tokens.npz"
    file.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_special_tokens(file, DIM)


def test_a_missing_file_says_where_it_is_from(tmp_path):
    with pytest.raises(InputError, match="special_tokens.npz: is missing; it lies in example/assets"):
        read_special_tokens(tmp_path / "special_tokens.npz", DIM)
