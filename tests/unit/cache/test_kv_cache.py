"""The K/V store: a view sees what was written, and only that."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.cache.kv_cache import KVStore
from flowcache.cache.kv_select import Compression, latest

TOKENS, HEADS, DIM = 3, 2, 4


def store(chunks=4, **budget):
    return KVStore((2, 2, HEADS, DIM), TOKENS, chunks, torch.float32, torch.device("cpu"), **budget)


def softmax_attention(q, k, v):
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(DIM**0.5).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)


writes = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 3)), max_size=20)


@settings(deadline=None)
@given(writes, st.integers(0, 3))
def test_a_view_sees_the_latest_of_every_chunk_up_to_its_own(order, first):
    torch.manual_seed(0)
    kv, expected = store(), {}
    everything = [(layer, branch, chunk) for layer in range(2) for branch in range(2) for chunk in range(4)]
    for layer, branch, chunk in [*everything, *order]:
        q, k, v = torch.randn(3, 1, TOKENS, HEADS, DIM)
        expected[layer, branch, chunk] = k, v
        seen = [expected[layer, branch, c] for c in range(min(first, chunk), chunk + 1)]
        keys, values = (torch.cat(part, dim=1) for part in zip(*seen, strict=True))
        attend, tokens = kv.view(branch, chunk, min(first, chunk))
        assert tokens == keys.shape[1]
        got = attend(layer, q, k, v)
        torch.testing.assert_close(got, softmax_attention(q, keys, values), atol=1e-5, rtol=0)


def test_bytes():
    assert store().bytes == 2 * (2 * 2 * 4 * TOKENS * HEADS * DIM) * 4


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([latest, Compression(kernel=3).select]))
def test_a_budget_keeps_the_chosen_tokens_and_all_active_chunks(budget, active, select):
    """Against a list of tokens that is cut in the open: chunk c finishes once chunk c + active - 1 has started."""
    torch.manual_seed(0)
    kv, chunks = store(budget + active, budget=budget, select=select), 8
    clean = torch.empty(2, 0, HEADS, DIM)  # keys and values
    started = {}
    for newest in range(chunks):
        finished = max(newest - active + 1, 0)
        for chunk in range(finished, newest + 1):
            q, k, v = torch.randn(3, 1, TOKENS, HEADS, DIM)
            if finished - 1 in started:
                clean = torch.cat([clean, started.pop(finished - 1)], dim=1)
            if clean.shape[1] > budget * TOKENS:
                chosen = select(q[0], clean[0], budget * TOKENS)[..., None].expand(-1, -1, DIM)
                clean = torch.stack([part.gather(0, chosen) for part in clean])
            started[chunk] = torch.cat([k, v])
            seen = torch.cat([clean, *(started[c] for c in range(finished, chunk + 1))], dim=1)
            attend, tokens = kv.view(1, chunk, finished=finished)
            assert tokens == seen.shape[1] <= (budget + active) * TOKENS
            got = attend(0, q, k, v)
            torch.testing.assert_close(got, softmax_attention(q, seen[:1], seen[1:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("select", [latest, Compression(kernel=3).select, Compression(group=TOKENS).select])
def test_a_batch_of_branches_is_each_branch_on_its_own(select):
    torch.manual_seed(0)
    alone, together = (store(3, budget=1, select=select) for _ in range(2))
    for chunk in range(6):
        finished = max(chunk - 1, 0)
        for layer in range(2):
            q, k, v = torch.randn(3, 2, TOKENS, HEADS, DIM)
            if layer == 0:
                views = [alone.view(branch, chunk, finished=finished) for branch in range(2)]
                attend, seen = together.view(range(2), chunk, finished=finished)
                assert {tokens for _, tokens in views} == {seen}
            rows = [view(layer, q[b : b + 1], k[b : b + 1], v[b : b + 1]) for b, (view, _) in enumerate(views)]
            torch.testing.assert_close(attend(layer, q, k, v), torch.cat(rows), atol=1e-6, rtol=0)


@pytest.mark.parametrize("late", [False, True])
def test_a_late_cut_asks_with_the_queries_of_the_forward_before(late):
    """Whichever forward that was: chunk 1's here, while chunk 2 cuts what chunks 0 and 1 left."""
    torch.manual_seed(0)
    kv, select = store(3, budget=1, select=Compression(mix=1.0, kernel=1).select, late=True), Compression(1.0, 1).select
    given = torch.randn(3, 3, 1, TOKENS, HEADS, DIM)  # of each chunk: q, k, v
    for chunk, (q, k, v) in enumerate(given[:2]):
        kv.view(0, chunk)[0](0, q, k, v)
    q, k, v = given[2]
    got = kv.view(0, 2, finished=2, late=late)[0](0, q, k, v)
    clean = [torch.cat([*given[:2, part, 0]]) for part in (1, 2)]
    chosen = select(given[1 if late else 2, 0, 0], clean[0], TOKENS)[..., None].expand(-1, -1, DIM)
    keys, values = (torch.cat([x.gather(0, chosen), new[0]])[None] for x, new in zip(clean, (k, v), strict=True))
    torch.testing.assert_close(got, softmax_attention(q, keys, values), atol=1e-5, rtol=0)


def test_branches_that_lost_different_tokens_are_not_viewed_together():
    kv = store(3, budget=1, select=latest)
    kv.view(0, 2, finished=2)
    with pytest.raises(ValueError, match=r"branches \[0, 1\]"):
        kv.view(range(2), 2, finished=2)
