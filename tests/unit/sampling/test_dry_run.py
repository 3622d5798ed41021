"""What a run would forward, told without a model: against runs of a model that has weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.sampling.dry_run import at_least, at_most, dry_run
from flowcache.sampling.loop import Texts, denoise
from tests.unit.sampling.small import POLICIES, small_model


@pytest.fixture(scope="module")
def model():
    return small_model()


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 5), st.integers(0, 8), st.integers(0, 3), st.sampled_from([1.0, 3.0]),
    st.sampled_from(list(POLICIES)),
)  # fmt: skip
def test_a_dry_run_is_the_run(model, chunks, ar_step, held, guidance, name):
    """The same forwards, seeing as many tokens, as with a model that has weights; and as much room for K/V."""
    chunks += held // 2
    given = SamplerSettings(steps=3, shift=3.0, guidance=guidance, ar_step=ar_step, chunk=2, fps=24)
    policy, visits = POLICIES[name], []
    prefix = torch.randn(4, held, 4, 4) if held else None
    texts = Texts(torch.randn(1, 8, 16), torch.randn(1, 8, 16))
    whole = torch.zeros(4, held // 2 * 2, 4, 4)
    finished = list(
        denoise(model, torch.randn(4, 2 * chunks, 4, 4), texts, given, policy, prefix, lambda _: whole, visits.append)
    )
    done = dry_run(given, (2 * chunks, 4, 4), (1, 2, 2), policy, held)
    computed = sum(visit.decision.compute for visit in visits)
    assert (done.forwards, done.seen, done.tokens) == (computed, sum(visit.seen for visit in visits), 8)
    assert finished[-1].kv_bytes == done.kv_branches * done.kv_chunks * done.tokens * 2 * 2 * 48 * 4


def test_bounds_of_reuse():
    reuse = Reuse(0.1, 2, (1.0, 0.0))
    policy = Policy("paper", reuse, "stale", clean=2, compression=Compression())
    given = SamplerSettings(steps=6, shift=3.0, guidance=1.0, ar_step=2, chunk=2, fps=24)
    most, least = (dry_run(given, (8, 4, 4), (1, 2, 2), bound(policy)) for bound in (at_most, at_least))
    assert (most.forwards, least.forwards) == (4 * 6, 4 * 3)  # the first two steps and the last
    assert at_least(Policy("off")) == Policy("off")
