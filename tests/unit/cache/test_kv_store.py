"""The K/V store: a view sees what was written, and only that."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.cache.kv_store import KVStore

TOKENS, HEADS, DIM = 3, 2, 4


def store(layers=2, branches=2, chunks=4):
    return KVStore.allocate(layers, branches, chunks, TOKENS, HEADS, DIM, torch.float32, torch.device("cpu"))


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
        got = kv.view(branch, chunk, min(first, chunk))(layer, q, k, v)
        torch.testing.assert_close(got, softmax_attention(q, keys, values), atol=1e-5, rtol=0)


def test_bytes():
    assert store().bytes == 2 * (2 * 2 * 4 * TOKENS * HEADS * DIM) * 4
