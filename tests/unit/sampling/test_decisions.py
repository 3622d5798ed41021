"""Decisions where guidance asks for other branches at other steps: MAGI-1, walked without weights."""

import pytest
import torch

from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatVelocity
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.sampling.dry_run import Weightless
from flowcache.sampling.loop import Texts, denoise

REUSE = Reuse(threshold=float("inf"), warmup_steps=2, coefficients=(0.0,))
POLICIES = {
    "off": Policy("off", kv_update="refresh"),
    "flowcache": Policy("flowcache", REUSE, "refresh", cache=CacheOf(RepeatVelocity)),
}


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_every_forward_of_a_step_has_its_mark(policy, passes):
    settings = MagiSettings(8, 2, 2, 24, 7.5, Pipeline(passes=passes))
    text, visits = Texts(torch.empty(1, 0, 0), torch.empty(1, 0, 0)), []
    chunks = list(
        denoise(Weightless((1, 2, 2)), torch.empty(0, 8, 4, 4), text, settings, policy, observe=visits.append)
    )
    for chunk in chunks:
        own = [visit for visit in visits if visit.chunk == chunk.index and visit.step >= 0]
        assert len(chunk.decisions) == 1 + max(visit.branch for visit in own)
        for branch, steps in enumerate(chunk.decisions):
            expected = {visit.step: "01"[visit.decision.compute] for visit in own if visit.branch == branch}
            assert steps == "".join(expected.get(step, "-") for step in range(8))
        marks = "".join(chunk.decisions)
        assert (marks.count("1"), marks.count("0")) == (chunk.computed, chunk.reused)
    assert any("-" in steps for steps in chunks[0].decisions)  # a branch without weight at a step is not run
    assert ("0" in "".join(chunks[0].decisions)) == (policy.reuse is not None)
