"""MagCache's rule: on examples worked out by hand, and what its ratios are measured from."""

import pytest
import torch

from flowcache.cache.magnitude import KeptResidual, MagnitudeReuse, Magnitudes, Measured, MeasureMagnitudes, table_of
from flowcache.cache.policy import Policy
from flowcache.cache.step_cache import CacheOf

HALF = (1.0, 1.0, 1.0, 1.0, 0.95, 0.95, 0.95, 0.95, 1.0, 1.0)


def computed(rule: MagnitudeReuse, steps: int, branch: int = 0) -> str:
    """A character a step, of one chunk."""
    window = rule.of_window(steps, steps, lambda x: x)
    taken = (window.decide(step, {0: step}, lambda chunk: None)[0].of(branch) for step in range(steps))
    return "".join("01"[decision.compute] for decision in taken)


def test_errors_of_skipped_steps_add_up():
    """After two retained steps: 0, 0, .05, .05 + .0975 = .1475 >= .12; anew: .05, .1475, and then 0 and 0."""
    assert computed(MagnitudeReuse((HALF,), 0.12, 10, 0.2), 10) == "1100010100"


def test_after_a_computed_step_the_ratio_begins_anew():
    """.05, .1475, .29 >= .16; then .05 at each of three steps, as the ratio stays .95."""
    assert computed(MagnitudeReuse((HALF,), 0.16, 10, 0.2), 10) == "1100001000"


def test_no_more_than_so_many_in_a_row():
    assert computed(MagnitudeReuse(((1.0,) * 10,), 0.12, 3, 0.2), 10) == "1100010001"


def test_a_ratio_is_the_product_since_the_last_computed_step():
    """1.1 and then 1 / 1.1: the magnitude is back where it was, and the second step adds nothing."""
    ratios = (1.0, 1.1, 1 / 1.1, 1.1, 1 / 1.1)
    assert computed(MagnitudeReuse((ratios,), 0.15, 10, 0.0), 5) == "10010"


def test_branches_are_counted_in_turn_and_decide_for_themselves():
    """Of 2 * 5 forwards 0.3 are 3: the first branch's steps 0 and 1, the second one's 0."""
    rule = MagnitudeReuse(((1.0,) * 5, (1.0, 1.0, 1.0, 9.0, 1.0)), 0.12, 9, 0.3)
    assert (computed(rule, 5, 0), computed(rule, 5, 1)) == ("11000", "10010")


def test_the_first_step_is_computed_whatever_is_retained():
    assert computed(MagnitudeReuse(((1.0,) * 3,), 0.12, 4, 0.0), 3) == "100"


def test_chunks_are_each_at_a_step_of_their_own():
    window = MagnitudeReuse((HALF,), 0.12, 10, 0.2).of_window(10, 12, lambda x: x)
    taken = window.decide(5, {0: 5, 1: 2}, lambda chunk: None)
    assert taken[0].of(0).compute and not taken[1].of(0).compute
    window.forget(0)
    assert window.decide(5, {0: 5}, lambda chunk: None)[0] == taken[0]


def test_ratios_are_measured_token_by_token_and_are_means_over_chunks():
    into = Magnitudes()
    tokens, residual = torch.zeros(2, 3), torch.tensor([[3.0, 4, 0], [0, 0, 1]])
    for factors in ([2.0, 0.5], [4.0, 1.5]):
        cache = MeasureMagnitudes(into)
        cache.keep(0, tokens, residual)
        cache.keep(0, tokens, residual * torch.tensor(factors)[:, None])
        cache.keep(1, tokens, residual)
    assert into.table(3) == ((1.0, 2.0, 1.0), (1.0, 1.0, 1.0)) == table_of([[1, 2, 1], [1, 1, 1]])


def test_all_is_plain_data_and_measuring_computes_every_step():
    policy = Policy("magcache", MagnitudeReuse((HALF,)), "refresh", cache=CacheOf(KeptResidual))
    assert hash(policy) and policy.reuse.at_most() is policy.reuse
    rule = Measured()
    assert rule.at_most() is rule and rule.of_window(3, 3, sum).decide(0, {0: 2}, None)[0].compute
    cache = policy.step_cache()
    cache.keep(0, torch.ones(1, 2), torch.full((1, 2), 4.0))
    assert cache.stand_in(0, torch.zeros(1, 2)) == pytest.approx(torch.full((1, 2), 3.0))
