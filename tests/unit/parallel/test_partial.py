"""Attention in parts: every kernel against plain formulas, in memory and merged."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.memory import extra_memory
from flowcache.models import log_sum_exp as parts
from flowcache.models.attention import attention
from flowcache.models.log_sum_exp import kernel, plain
from flowcache.parallel.partial import merge, partial


def random(seed: int, tokens: int, keys: int, heads: tuple[int, int], dim: int = 8, dtype=torch.float32):
    torch.manual_seed(seed)
    shapes = (2, tokens, heads[0], dim), (2, keys, heads[1], dim), (2, keys, heads[1], dim)
    return [torch.randn(shape).mul(2).to(dtype) for shape in shapes]


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 99),
    st.integers(1, 20),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from([(4, 4), (6, 2), (3, 1)]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_merged_parts_are_attention_over_all_keys(seed, tokens, runs, heads, dtype):
    q, k, v = random(seed, tokens, sum(runs), heads, dtype=dtype)
    found = [partial(q, *some) for some in zip(k.split(runs, dim=1), v.split(runs, dim=1), strict=True)]
    merged = merge(torch.stack([out for out, _ in found]), torch.stack([total for _, total in found]))
    tolerance = 0.03 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(merged, attention(q, k, v).float(), atol=tolerance, rtol=0)
    assert found[0][0].dtype == dtype and found[0][1].shape == q.shape[:-1]


def test_queries_may_lie_anyhow():
    q, k, v = random(0, 7, 5, (3, 3))
    strided = q.mT.contiguous().mT
    torch.testing.assert_close(partial(strided, k, v), partial(q, k, v))


def test_plain_products_equal_the_kernel_however_few_queries_fit(monkeypatch):
    q, k, v = (x.transpose(1, 2) for x in random(0, 7, 5, (3, 3)))
    monkeypatch.setattr(parts, "LOGITS_AT_ONCE", 50)
    for ours, theirs in zip(plain(q, k, v), kernel(q, k, v), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", [kernel, plain])
def test_no_matrix_of_scores_is_ever_held(form, monkeypatch):
    monkeypatch.setattr(parts, "LOGITS_AT_ONCE", 2**20)
    q, k, v = (torch.randn(1, 4, 2048, 16) for _ in range(3))
    assert extra_memory(lambda: form(q, k, v)) < 4 * 2048 * 2048  # in bytes: a quarter of it in fp32


@pytest.mark.parametrize("usable", ["can_use_flash_attention", "can_use_efficient_attention", None])
def test_a_gpu_gets_the_first_kernel_that_fits(usable, monkeypatch):
    """Shapes alone, without a GPU: of what torch's operators return there."""
    for name in ("can_use_flash_attention", "can_use_efficient_attention"):
        monkeypatch.setattr(parts, name, lambda _, name=name: name == usable)
    with FakeTensorMode():
        q, k = (torch.empty(2, n, heads, 64, dtype=torch.bfloat16, device="cuda") for n, heads in ((7, 6), (9, 2)))
        out, total = partial(q, k, k)
    assert (out.shape, out.dtype) == (q.shape, q.dtype) and (total.shape, total.dtype) == (q.shape[:-1], torch.float32)
