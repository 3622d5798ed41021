"""Packed forwards are the same as one by one, whatever is rendered; and as few as texts and sizes allow."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.cache.policy import Policy
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.parallel.mesh import ALONE
from flowcache.sampling import executor
from flowcache.sampling.loop import Texts, denoise
from tests.unit.parallel.cases import Case, cases, model_of, play


@pytest.mark.parametrize("family", ["skyreels", "magi"])
@settings(max_examples=25)
@given(st.data())
def test_packed_equals_one_by_one(family, data):
    """With K/V budgets, compression and reuse; also where a batch is cut short."""
    case, most = data.draw(cases(family)), data.draw(st.sampled_from([0, 2, 3, 100]), "most")
    with mock.patch.object(executor, "PACKED_CHUNK", 0):
        alone = play(ALONE, case)
    with mock.patch.object(executor, "PACKED_BATCH", most * case.tokens):
        packed = play(ALONE, case)
    np.testing.assert_allclose(packed.latents, alone.latents, atol=1e-5, rtol=1e-5)
    assert packed.kv_bytes == alone.kv_bytes
    # Of one row the visits come batch by batch: order within it says nothing.
    assert sorted(packed.decisions) == sorted(alone.decisions)


def transforms(case: Case, texts: Texts) -> list[int]:
    """How many forwards each call of the model's blocks ran, in a window of six chunks."""
    model, sizes = model_of(case), []
    real = model.transform

    def counted(tokens, *rest):
        sizes.append(len(tokens))
        return real(tokens, *rest)

    model.transform = counted
    plan = MagiSettings(8, lag=2, chunk=1, fps=24, guidance=7.5, pipeline=Pipeline(window=4))
    list(denoise(model, torch.randn(4, 6, 4, 4), texts, plan, Policy("off", kv_update="refresh")))
    return sizes


def magi_case() -> Case:
    off = Policy("off", kv_update="refresh")
    return Case("magi", off, 2, 2, 1, 6, 4, 4, 8, 2, picture=False, end=False, seed=0)


def test_a_row_is_a_few_batches():
    """All of its forwards in one, whatever texts they see: MAGI-1's three passes and a finished chunk's."""
    torch.manual_seed(0)
    texts = Texts(torch.randn(1, 5, 8))
    packed = transforms(magi_case(), texts)
    with mock.patch.object(executor, "PACKED_CHUNK", 0):
        alone = transforms(magi_case(), texts)
    assert set(alone) == {1} and sum(packed) == len(alone)
    assert (len(alone), len(packed)) == (139, 18)
    assert max(packed) == 13  # 4 chunks in flight in three passes, one of them in two, and a finished one in two


def test_texts_of_other_lengths_run_together():
    torch.manual_seed(0)
    lengths = (1, 5, 3, 2, 4, 6)
    ragged = transforms(magi_case(), Texts([torch.randn(1, length, 8) for length in lengths]))
    assert ragged == transforms(magi_case(), Texts([torch.randn(1, 5, 8) for _ in lengths]))
