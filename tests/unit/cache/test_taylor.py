"""TaylorSeer: which steps are computed, and forecasts worked out by hand."""

import pytest
import torch

from flowcache.cache.taylor import EveryNth, ForecastResidual

TOKENS = torch.tensor([[1.0, -1.0]])


def test_every_nth_step_of_a_chunk_is_computed():
    window = EveryNth(5).of_window(12, 20, lambda x: x)
    taken = [window.decide(step, {0: step, 1: step + 5}, lambda chunk: None) for step in range(12)]
    assert [step for step in range(12) if taken[step][0].compute] == [0, 5, 10]
    assert all(each[0] == each[1] for each in taken)
    assert EveryNth().at_most() == EveryNth(5)


def run(order: int, values: dict[int, float], steps: int) -> list[float]:
    """What a residual with these computed values is taken for at each step."""
    cache, found = ForecastResidual(order), []
    for step in range(steps):
        if step in values:
            cache.keep(0, TOKENS, TOKENS + values[step])
            found.append(values[step])
        else:
            found.append(float((cache.stand_in(0, TOKENS) - TOKENS)[0, 0]))
        cache.advance(TOKENS, TOKENS, lambda velocity: velocity)
    return found


def test_of_one_value_the_forecast_is_that_value():
    assert run(1, {0: 2.0}, 3) == [2, 2, 2]


def test_the_first_order_goes_straight_on():
    """(4 - 2) / 2 = 1 a step."""
    assert run(1, {0: 2.0, 2: 4.0}, 5) == pytest.approx([2, 2, 4, 5, 6])


def test_the_second_order_has_differences_of_differences():
    """0, 4, 16 at 0, 2, 4: 2 and 6 a step, (6 - 2) / 2 = 2; then 16 + 6 + 2 / 2 and 16 + 12 + 2 * 4 / 2."""
    assert run(2, {0: 0.0, 2: 4.0, 4: 16.0}, 7)[5:] == pytest.approx([23, 32])


def test_uneven_gaps_are_counted():
    """From 1 at step 0 to 7 at step 3, 2 a step; then 11 at step 4, (11 - 7) / 1 = 4."""
    assert run(1, {0: 1.0, 3: 7.0, 4: 11.0}, 6)[5] == pytest.approx(15)


def test_branches_are_forecast_by_themselves():
    cache = ForecastResidual(1)
    for step, (one, other) in enumerate([(1.0, 5.0), (2.0, 3.0)]):
        cache.keep(0, TOKENS, TOKENS + one)
        cache.keep(1, TOKENS, TOKENS + other)
        cache.advance(TOKENS, TOKENS, lambda velocity: velocity)
        assert cache.step == step + 1
    torch.testing.assert_close(cache.stand_in(0, TOKENS), TOKENS + 3)
    torch.testing.assert_close(cache.stand_in(1, TOKENS), TOKENS + 1)
