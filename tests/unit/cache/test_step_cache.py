"""What stands in for a step that is not computed."""

import pytest
import torch

from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import REPEATS, RepeatIncrement, RepeatResidual, RepeatVelocity, StepCache, step_cache

REUSE = Reuse(1.0, 1, (1.0, 0.0))
X, V = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))


def test_a_policy_names_its_cache():
    assert {name: type(step_cache(Policy("p", REUSE, "stale", repeats=name))) for name in REPEATS} == REPEATS
    assert type(step_cache(Policy("off"))) is StepCache


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
