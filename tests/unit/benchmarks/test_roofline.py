"""Budgets at true sizes: predicted milliseconds of a chunk's forward on one H100."""

import pytest

from benchmarks.roofline import CASES, COMPUTED, DECODERS, GIB, forward, seconds, simulate

MILLISECONDS = {"1.3B": 160, "14B": 900, "4.5B": 480, "24B": 3900}


@pytest.mark.long
@pytest.mark.parametrize("name", ["1.3B", "14B", "4.5B", pytest.param("24B", marks=pytest.mark.slow)])
def test_a_forward_stays_within_its_budget(name):
    case = CASES[name]
    tally, forwards = simulate(case, COMPUTED[case.magi])
    took = forward(tally, forwards)
    assert took.total < MILLISECONDS[name]
    assert took.fp32 < 0.01 * took.total, "products in fp32 take thirteen times as long as in bf16"
    assert not tally.mixed


def test_magis_vae_computes_in_half_precision_on_a_gpu():
    tally, peak = DECODERS["MAGI-1 VAE 720x720"]()
    assert 1e3 * seconds(tally) < 160 and peak < 1.8 * GIB
    assert ("matmul", "float32") not in tally.kernels and not tally.waits and not tally.mixed
