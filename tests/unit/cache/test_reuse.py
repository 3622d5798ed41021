"""The reuse policy: pure decisions."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.cache.reuse import Reuse, ReuseState, decide, relative_change

signals = st.lists(st.floats(0.1, 10), min_size=1, max_size=30)
reuses = st.builds(
    Reuse, st.floats(-1, 5), st.integers(0, 6), st.lists(st.floats(-5, 5), min_size=1, max_size=5).map(tuple)
)


def walk(reuse, values, steps=None):
    state, decisions = ReuseState(), []
    for step, value in enumerate(values):
        decision, state = decide(reuse, state, torch.tensor([value, 2 * value]), step, steps or len(values))
        decisions.append(decision)
    return decisions


@settings(deadline=None)
@given(reuses, signals)
def test_decisions_are_pure_and_ends_are_computed(reuse, values):
    decisions = walk(reuse, values)
    assert decisions == walk(reuse, values)
    assert decisions[0].compute and decisions[-1].compute
    assert all(decision.compute for decision in decisions[: reuse.warmup_steps])


@settings(deadline=None)
@given(reuses, signals)
def test_sum_grows_until_a_step_is_computed(reuse, values):
    total = 0.0
    for decision in walk(reuse, values):
        if decision.accumulated is None:
            total = 0.0
            continue
        total += decision.estimate
        assert decision.accumulated == total and decision.compute == (total >= reuse.threshold)
        total = 0.0 if decision.compute else total


def test_the_signal_is_compared_with_the_last_step_even_if_skipped():
    decisions = walk(Reuse(1e9, 1, (1.0, 0.0)), [1.0, 2.0, 4.0, 8.0])
    assert [decision.distance for decision in decisions] == [None, 1.0, 1.0, None]


@settings(deadline=None)
@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=6), st.floats(0, 2))
def test_estimate_is_the_polynomial(coefficients, distance):
    expected = np.polyval(coefficients, distance)
    assert math.isclose(Reuse(0, 0, tuple(coefficients)).estimate(distance), expected, rel_tol=1e-9, abs_tol=1e-6)


def test_relative_change():
    assert relative_change(torch.tensor([1.0, -3.0]), torch.tensor([2.0, -2.0])) == 0.5


def test_off_always_computes():
    assert all(decision.compute and decision.distance is None for decision in walk(None, [1.0, 9.0, 1.0]))
