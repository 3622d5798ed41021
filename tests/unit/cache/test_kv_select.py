"""Scores of clean tokens: against the plain formulas, and what they are meant to do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from flowcache.cache import kv_select
from flowcache.cache.kv_select import (
    QUERIES_AT_ONCE,
    Compression,
    Sink,
    by_logits,
    importance,
    latest,
    redundancy,
    sampled,
    top,
)
from flowcache.cache.policy import Policy


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


def test_importance_is_the_mean_attention_however_many_queries_come_at_once():
    torch.manual_seed(0)
    queries, keys = torch.randn(2 * QUERIES_AT_ONCE + 3, 4, 8), torch.randn(20, 2, 8)
    logits = torch.einsum("qhgd,khd->hgqk", queries.unflatten(1, (2, 2)), keys) / 8**0.5
    torch.testing.assert_close(importance(queries, keys), logits.amax(1).softmax(-1).mean(1), atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.1, 1.0, 30.0]), st.booleans())
def test_fused_importance_is_that_of_the_logits(seed, asking, asked, size, half):
    torch.manual_seed(seed)
    queries, keys = size * torch.randn(asking, 3, 16), torch.randn(asked, 3, 16)
    if half:
        queries, keys = queries.bfloat16(), keys.bfloat16()
    torch.testing.assert_close(importance(queries, keys), by_logits(queries, keys), atol=3e-5, rtol=1e-3)


def test_of_many_queries_all_rows_and_columns_are_asked():
    """At true sizes: (frames, rows, columns) of a chunk's tokens."""
    for sizes in ((5, 34, 60), (5, 45, 80), (6, 45, 45), (6, 45, 80), (5, 30, 52)):
        total = sizes[0] * sizes[1] * sizes[2]
        for shared in (True, False):
            asked = sampled(torch.arange(total)[:, None], shared)[:, 0]
            assert 512 < len(asked) <= 1024 if shared else total / 2.7 < len(asked) < total / 2.6
            places = torch.stack(torch.unravel_index(asked, sizes))
            assert [len(own.unique()) for own in places] == [*sizes]


def test_few_queries_are_all_asked(monkeypatch):
    queries = torch.arange(10.0)[:, None, None]
    assert torch.equal(sampled(queries, True), queries) and torch.equal(sampled(queries, False), queries)
    monkeypatch.setattr(kv_select, "EVERY_QUERY", 9)
    assert sampled(queries, False).flatten().tolist() == sampled(queries, True).flatten().tolist() == [1, 3, 6]
    monkeypatch.setattr(kv_select, "ASKED", 2)
    assert sampled(queries, False).flatten().tolist() == [1, 3, 6] and sampled(queries, True).flatten().tolist() == [2]


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_sink_keeps_both_ends(first, recent, between):
    tokens, chunks = 5, first + recent + between
    keys = torch.zeros(chunks * tokens, 2, 4)
    chosen = Sink(first, recent).select(keys, keys, (first + recent) * tokens)
    expected = [*range(first * tokens), *range((first + between) * tokens, chunks * tokens)]
    assert chosen.T.tolist() == [expected, expected]


@pytest.mark.parametrize(("by", "group"), [("token", 1), ("frame", 3), ("chunk", 6)])
def test_frames_and_chunks_are_kept_whole(by, group):
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 24, 2, 8)
    chosen = Compression(by=by).grouped(frame=3, chunk=6).select(queries, keys, 12)
    for head in chosen.T.tolist():
        assert len(set(head)) == 12
        groups = [head[i : i + group] for i in range(0, 12, group)]
        assert all(run == list(range(run[0], run[0] + group)) and run[0] % group == 0 for run in groups)


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


@pytest.mark.parametrize("settings", [{"kv_update": "recompute"}, {"kv_update": "stale", "renoise": True}])
def test_what_is_forwarded_again_has_no_budget(settings):
    with pytest.raises(ValueError, match="budget"):
        Policy("mixed", clean=1, **settings)
