from types import SimpleNamespace

import pytest
import torch

from benchmarks.mends import UNMENDED, WARM_UP, fitted
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatIncrement
from flowcache.families.registry import find
from flowcache.families.settings import resolve_policy
from training.calibrate import computed_steps, short


@pytest.mark.parametrize("steps", [12, 20])
@pytest.mark.parametrize("policy", [{"name": "paper"}, UNMENDED, {"name": "flowcache"}])
def test_a_threshold_for_a_number_of_forwards(steps, policy):
    spec = find("tiny-magi")
    generator = torch.Generator().manual_seed(steps)
    seen = [short([torch.randn(4, generator=generator).cumsum(0) + step for step in range(spec.steps)])]
    found = fitted(SimpleNamespace(spec=spec), policy | {"preset": "slow-published"}, steps, seen)
    last = policy == {"name": "flowcache"}
    reuse = Reuse(found["threshold"], WARM_UP, (1.0, 0.0), last)
    assert len(computed_steps(reuse, seen[0], last)) == pytest.approx(steps, abs=1)
    assert resolve_policy(found, spec).reuse == reuse


def test_unmended_is_what_paper_does():
    spec = find("tiny-magi")
    paper, ours = (resolve_policy(policy | {"preset": "slow"}, spec) for policy in ({"name": "paper"}, UNMENDED))
    assert (ours.cache, ours.reuse.last_step, ours.kv_update) == (paper.cache, paper.reuse.last_step, paper.kv_update)
    assert (ours.cache, ours.reuse.last_step, ours.kv_update) == (CacheOf(RepeatIncrement), False, "stale")


def test_short_changes_as_the_signals_do():
    values = list(torch.randn(6, 10, generator=torch.Generator().manual_seed(0)))
    reuse = Reuse(2.0, 1, (1.0, 0.0))
    assert computed_steps(reuse, short(values)) == computed_steps(reuse, values)
