"""Scores of clean tokens: against the plain formulas, and what they are meant to do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from flowcache.cache.kv_compress import Compression, importance, latest, redundancy, top
from flowcache.cache.reuse import Policy


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 3), st.integers(0, 99))
def test_redundancy_is_the_mean_cosine_to_the_others(length, heads, seed):
    torch.manual_seed(seed)
    keys = torch.randn(length, heads, 8)
    unit = F.normalize(keys, dim=-1)
    cosines = torch.einsum("ihd,jhd->hij", unit, unit) - torch.eye(length)
    torch.testing.assert_close(redundancy(keys), (cosines.sum(-1) / length).softmax(-1), atol=1e-6, rtol=1e-5)


def test_copies_are_redundant_and_what_is_asked_for_is_important():
    keys = torch.eye(10)[:, None]
    keys[4:6] = keys[3]
    assert set(redundancy(keys)[0].topk(3).indices.tolist()) == {3, 4, 5}
    assert importance(10 * keys[7:8], keys)[0].argmax() == 7


def test_groups_stay_together_best_first():
    score = torch.tensor([[0.0, 0.1, 0.9, 0.8, 0.5, 0.5]])
    assert top(score, 4, group=2).flatten().tolist() == [2, 3, 4, 5]
    assert top(score, 2).flatten().tolist() == [2, 3]


def test_selection_is_per_head_and_within_the_keys():
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 12, 4, 8)
    chosen = Compression(mix=0.5, kernel=3).select(queries, keys, 5)
    assert chosen.shape == (5, 4) and all(len(set(head)) == 5 for head in chosen.T.tolist())
    assert not (chosen[:, :1] == chosen).all()
    assert latest(queries, keys, 3).T.tolist() == [[9, 10, 11]] * 4


@pytest.mark.parametrize("settings", [{"history": "rerun"}, {"history": "keep", "renoise": True}])
def test_what_is_forwarded_again_has_no_budget(settings):
    with pytest.raises(ValueError, match="budget"):
        Policy("mixed", clean=1, **settings)
