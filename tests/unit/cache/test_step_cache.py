"""What stands in for a step that is not computed."""

import pickle

import pytest
import torch

from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatIncrement, RepeatResidual, RepeatVelocity, StepCache

REUSE = Reuse(1.0, 1, (1.0, 0.0))
X, V = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))


class Settled(StepCache):
    def __init__(self, order: int) -> None:
        self.order = order


def test_a_policy_says_its_cache_as_plain_data():
    for kind in (RepeatResidual, RepeatVelocity, RepeatIncrement):
        policy = Policy("p", REUSE, "stale", cache=CacheOf(kind))
        first, second = policy.step_cache(), policy.step_cache()
        assert type(first) is kind and first is not second  # each chunk has its own
        assert pickle.loads(pickle.dumps(policy)) == policy and hash(policy)
    made = CacheOf(Settled, (2,)).of_chunk()
    assert isinstance(made, Settled) and made.order == 2 and CacheOf(Settled, (2,)) != CacheOf(Settled, (3,))
    assert type(Policy("p", REUSE, "stale").step_cache()) is RepeatResidual
    assert type(Policy("off").step_cache()) is StepCache


def test_nothing_is_kept_without_reuse():
    cache = StepCache()
    cache.keep(0, X, V)
    assert cache.stand_in(0, X) is None and torch.equal(cache.advance(X, V, lambda v: X - v), X - V)
    with pytest.raises(ValueError, match="keeps nothing"):
        cache.advance(X, None, lambda v: v)


def test_a_residual_is_repeated_on_other_tokens_for_each_branch():
    cache = RepeatResidual()
    for branch, factor in ((0, 2), (1, 3)):
        cache.keep(branch, X, factor * X)
    for branch, factor in ((0, 1), (1, 2)):
        torch.testing.assert_close(cache.stand_in(branch, V), V + factor * X)
    assert torch.equal(cache.advance(X, V, lambda v: X - v), X - V)


def test_a_velocity_is_repeated_over_the_step_of_its_own_length():
    cache = RepeatVelocity()
    assert torch.equal(cache.advance(X, V, lambda v: X + 0.5 * v), X + 0.5 * V)
    assert cache.stand_in(0, X) is None
    assert torch.equal(cache.advance(X, None, lambda v: X + 2 * v), X + 2 * V)


def test_an_increment_is_repeated_whatever_the_solver_would_do():
    cache = RepeatIncrement()
    first = cache.advance(X, V, lambda v: X + 0.5 * v)
    torch.testing.assert_close(cache.advance(first, None, lambda v: first + 1000 * v), X + V)
