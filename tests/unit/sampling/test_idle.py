"""What is not forwarded is what nothing sees: each forward is disturbed in turn, and the result looked at."""

from dataclasses import replace

import pytest
import torch

from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatVelocity
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.sampling import planning as plans
from flowcache.sampling.dry_run import dry_run
from flowcache.sampling.loop import Texts, denoise
from tests.unit.sampling.small import small_magi, small_model

SKYREELS = SamplerSettings(steps=4, shift=3.0, guidance=3.0, ar_step=1, chunk=2, fps=24)
TO_THE_END = Pipeline(text_scales=(7.5, 7.5, 7.5, 3.0, 3.0))
BASE = MagiSettings(4, 1, 2, 24, 7.5, Pipeline())  # the text has no weight from time 0.3 on, nor has the pass alone
DISTILLED = replace(BASE, guidance=1.0, pipeline=Pipeline(passes=1, distilled=True))
REFRESH, STALE = Policy("off", kv_update="refresh"), Policy("paper", kv_update="stale")
CASES = {
    "magi": (BASE, REFRESH, 0),
    "magi continues": (BASE, REFRESH, 2),
    "magi stale": (BASE, STALE, 0),
    "magi guided by text to the end": (replace(BASE, pipeline=TO_THE_END), REFRESH, 0),
    "magi distilled": (DISTILLED, REFRESH, 0),
    "magi distilled, no copy": (replace(DISTILLED, prev_chunks_scale=1.0), REFRESH, 0),
    "skyreels": (SKYREELS, Policy("off"), 0),
    "skyreels refreshed": (SKYREELS, REFRESH, 2),
    "skyreels stale": (SKYREELS, STALE, 0),
}  # fmt: skip


class Disturbed:
    """A model whose forward number `at` takes other tokens."""

    def __init__(self, model, at):
        self.model, self.at, self.count = model, at, 0

    def __getattr__(self, name):
        return getattr(self.model, name)

    def transform(self, tokens, *rest):
        tokens = tokens + 1 if self.count == self.at else tokens
        self.count += 1
        return self.model.transform(tokens, *rest)


@pytest.fixture(scope="module")
def magi():
    return small_magi()


def run(model, settings, policy, given, at=-1):
    torch.manual_seed(1)
    noise, texts = torch.randn(4, 6, 4, 4), Texts(torch.randn(1, 8, 16), torch.randn(1, 8, 16))
    prefix, seen = (torch.randn(4, given, 4, 4) if given else None), Disturbed(model, at)
    whole = torch.zeros(4, given, 4, 4)
    chunks = denoise(seen, noise, texts, settings, policy, prefix, lambda row: whole, packed=False)
    return torch.cat([chunk.latents for chunk in chunks], 1), seen.count


def forwards(plan):
    return [(number, forward) for number, row in enumerate(plan.rows) for forward in row.forwards]


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_out_is_all_that_nothing_sees(magi, monkeypatch, name):
    settings, policy, given = CASES[name]
    model = magi if isinstance(settings, MagiSettings) else small_model()
    kept = forwards(plans.plan_for(settings, 6, policy, given))
    fewer, count = run(model, settings, policy, given)
    assert count == len(kept) == dry_run(settings, (6, 4, 4), (1, 1, 1), policy, given).forwards
    monkeypatch.setattr(plans, "without_idle", lambda plan, policy: plan)
    every = forwards(plans.plan_for(settings, 6, policy, given))
    assert torch.equal(run(model, settings, policy, given)[0], fewer)
    unseen = [one for at, one in enumerate(every) if torch.equal(run(model, settings, policy, given, at)[0], fewer)]
    assert unseen == [one for one in every if one not in kept]
    assert bool(unseen) == (name in {"magi", "magi continues", "magi stale", "magi guided by text to the end",
                                     "magi distilled, no copy"})  # fmt: skip


def test_a_step_that_may_be_reused_writes_over_nothing():
    """So what an earlier forward left may still be read."""
    policy = Policy("reuse", Reuse(0.1, 1, (1.0, 0.0)), "refresh", cache=CacheOf(RepeatVelocity))
    certain, open_ = (len(forwards(plans.plan_for(BASE, 6, each))) for each in (REFRESH, policy))
    assert certain <= open_ < len(forwards(BASE.plan(6, REFRESH)))


def test_under_a_budget_only_what_leaves_no_keys_is_left_out():
    policy = Policy("budget", kv_update="refresh", clean=1)
    left = [one for one in forwards(BASE.plan(12, policy)) if one not in forwards(plans.plan_for(BASE, 12, policy))]
    assert left and all(forward.kv_branch is None for _, forward in left)
