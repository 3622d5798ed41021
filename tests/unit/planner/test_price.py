"""The price of a window: of both its ends, for the gang and for its busiest rank, each counted once."""

from dataclasses import replace
from unittest import mock

import pytest

from flowcache.cache.reuse import Reuse
from flowcache.planner.price import CostModel, Work
from flowcache.planner.rank_work import flops, kv_bytes, rank_work, residual_bytes
from flowcache.sampling.dry_run import at_least, at_most, dry_run
from tests.unit.planner.published import DONE, MODELS, POLICIES, SPECS, WINDOWS, price

DRY_RUN = "flowcache.planner.price.dry_run"


@pytest.mark.parametrize("name", MODELS)
def test_both_ends_are_those_of_their_dry_runs(name):
    config, most, seen = MODELS[name], DONE[name], WINDOWS[name]
    least = dry_run(seen.settings, seen.shape, config.patch, at_least(POLICIES[name]), seen.given)
    found = price(name, 4)
    assert found.most == Work(most.forwards, flops(config, most), kv_bytes(config, most, 1))
    assert found.least == Work(least.forwards, flops(config, least), kv_bytes(config, least, 1))
    assert (found.rank_most, found.rank_least) == (rank_work(config, most, 4), rank_work(config, least, 4))
    assert found.rank(0.0) == found.rank_most and found.rank(1.0).flops == pytest.approx(found.rank_least.flops)
    assert found.least.flops < found.most.flops and found.steps == most.steps
    assert (found.model, found.width, found.height) == (name, SPECS[name].width, SPECS[name].height)


def test_memory_is_that_of_a_rank_at_the_windows_own_size():
    config, done, policy = MODELS["1.3B"], DONE["1.3B"], POLICIES["1.3B"]
    found = price("1.3B", 4)
    assert found.memory.keys_values == kv_bytes(config, done, 4)
    assert found.memory.residuals == residual_bytes(config, policy, done, 4) > 0
    assert price("1.3B", 4, at_most(policy)).memory.residuals == 0
    small = replace(WINDOWS["1.3B"], shape=(25, 34, 60))
    half = CostModel(SPECS, MODELS).price(small, policy, 4)
    assert (half.width, half.height) == (480, 272) and half.memory.codec < found.memory.codec / 3


def test_the_gang_together_is_the_same_for_every_number_of_ranks():
    one, four = price("1.3B", 1), price("1.3B", 4)
    assert (one.most, one.least, one.steps) == (four.most, four.least, four.steps)
    assert four.rank_most.flops < one.rank_most.flops and four.memory.total < one.memory.total


def test_sharded_weights_are_held_in_parts_and_sent():
    whole, sharded = price("14B", 8), price("14B", 8, sharded=True)
    assert sharded.memory.weights < whole.memory.weights / 6
    assert sharded.rank_most == replace(whole.rank_most, weights=sharded.rank_most.weights)
    assert sharded.rank_most.weights > whole.rank_most.weights == 0


def test_windows_that_are_alike_are_walked_once():
    """For all gang sizes, and for policies that differ in thresholds alone; a bound that is not reused is another."""
    costs, seen, policy = CostModel(SPECS, MODELS), WINDOWS["1.3B"], POLICIES["1.3B"]
    with mock.patch(DRY_RUN, wraps=dry_run) as walk:
        prices = [costs.price(seen, policy, ranks) for ranks in (1, 2, 4)]
        other = costs.price(seen, replace(policy, reuse=Reuse(0.7, 5, (2.0, 1.0))), 2)
        assert other is prices[1] and walk.call_count == 2
        later = costs.price(seen, replace(policy, reuse=Reuse(0.1, 9, (1.0,))), 2)
        assert later.least.forwards > other.least.forwards and walk.call_count == 3
        costs.price(replace(seen, given=5), at_most(policy))
        assert walk.call_count == 4


def test_work_adds_up_but_memory_is_the_largest():
    assert Work(1, 10, 5) + Work(2, 20, 4) * 3 == Work(7, 70, 5)
