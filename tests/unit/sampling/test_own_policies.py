"""Policies with a rule or a step cache that is not this package's: the loop and plans ask them, not who they are."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch

from flowcache.cache.policy import Policy
from flowcache.cache.reuse import JointReuse, Reuse
from flowcache.cache.step_cache import CacheOf, RepeatIncrement, RepeatResidual, RepeatVelocity, StepCache
from flowcache.cache.step_rule import ALWAYS, Decision, Rule, Signal, StepRule, Total
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.planner.price import CostModel
from flowcache.planner.rank_work import residual_bytes
from flowcache.sampling.dry_run import at_least, at_most, dry_run
from flowcache.sampling.loop import Texts, denoise
from flowcache.sampling.planning import plan_for
from tests.unit.planner.published import DONE, MODELS, SPECS, WINDOWS, price
from tests.unit.sampling.small import small_model

SKYREELS = SamplerSettings(steps=6, shift=3.0, guidance=3.0, ar_step=1, chunk=2, fps=24)
MAGI = MagiSettings(8, 2, 2, 24, 7.5, Pipeline())
REUSE = Reuse(1e9, 1, (1.0, 0.0))


@dataclass(frozen=True)
class Fixed(Rule):
    """The steps that every chunk computes, whatever is seen."""

    computed: tuple[int, ...]

    def of_window(self, steps: int, rows: int, total: Total) -> StepRule:
        return Chosen(self.computed)

    def at_most(self) -> "Fixed":
        return self


@dataclass
class Chosen:
    computed: tuple[int, ...]

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        return {chunk: ALWAYS if step in self.computed else Decision(False) for chunk, step in steps.items()}

    def forget(self, chunk: int) -> None: ...


class Scaled(StepCache):
    """The last velocity times what the policy was told."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def advance(self, latents, velocity, solve):
        if velocity is not None:
            self.last = velocity
        return solve(self.last * (self.factor if velocity is None else 1))

    def held(self, latents: int, tokens: int) -> int:
        return 3 * latents


def scheduled(factor: float = 1.0, computed: tuple[int, ...] = (0, 1, 4)) -> Policy:
    return Policy("scheduled", Fixed(computed), "stale", cache=CacheOf(Scaled, (factor,)))


def run(policy: Policy) -> tuple[torch.Tensor, list[tuple[str, ...]], int]:
    torch.manual_seed(1)
    noise, texts = torch.randn(4, 6, 4, 4), Texts(torch.randn(1, 8, 16), torch.randn(1, 8, 16))
    chunks = list(denoise(small_model(), noise, texts, SKYREELS, policy))
    marks = [chunk.decisions for chunk in chunks]
    return torch.cat([chunk.latents for chunk in chunks], 1), marks, "".join("".join(own) for own in marks).count("1")


def test_a_fixed_schedule_is_followed_and_its_cost_is_exact():
    policy = scheduled()
    latents, marks, computed = run(policy)
    assert marks == [("110010", "110010")] * 3
    most, least = (dry_run(SKYREELS, (6, 4, 4), (1, 2, 2), bound(policy)) for bound in (at_most, at_least))
    assert most == least and most.forwards == computed == 3 * 2 * 3
    repeated = Policy("repeated", Fixed((0, 1, 4)), "stale", cache=CacheOf(RepeatVelocity))
    torch.testing.assert_close(latents, run(repeated)[0])
    assert (run(scheduled(0.5))[0] - latents).abs().max() > 1e-3  # what the policy was told arrives


def test_its_price_is_one_and_so_is_what_it_keeps():
    policy, config, done = scheduled(), MODELS["1.3B"], DONE["1.3B"]
    found = price("1.3B", 4, policy)
    assert found.most == found.least and found.rank_most == found.rank_least
    latents = 4 * SPECS["1.3B"].channels * SPECS["1.3B"].chunk * (544 // 8) * (960 // 8)
    assert found.memory.residuals == done.chunks_in_flight * 3 * latents
    assert residual_bytes(config, Policy("off"), done, 4, channels=16) == 0
    costs = CostModel(SPECS, MODELS)
    assert costs.price(WINDOWS["1.3B"], scheduled(2.0)).most == costs.price(WINDOWS["1.3B"], policy).most
    assert costs.price(WINDOWS["1.3B"], scheduled(computed=(0,))).most.forwards < found.most.forwards


@pytest.mark.parametrize("rule", [REUSE, JointReuse(**vars(REUSE)), Fixed((0, 1, 4))], ids=["own", "joint", "fixed"])
def test_increments_are_refused_where_the_solver_remembers(rule):
    """UniPC goes on from its last two predictions: with one missing it was an IndexError, with both it drifted."""
    policy = Policy("published", rule, "stale", cache=CacheOf(RepeatIncrement))
    for plan in (lambda: run(policy), lambda: dry_run(SKYREELS, (6, 4, 4), (1, 2, 2), at_least(policy))):
        with pytest.raises(ValueError, match="'published': RepeatIncrement passes by the solver, and UniPC goes on"):
            plan()
    assert dry_run(SKYREELS, (6, 4, 4), (1, 2, 2), Policy("off", cache=policy.cache)).forwards  # nothing is reused
    assert rule.joint or plan_for(MAGI, 8, policy).steps == 8  # Euler remembers nothing


def test_a_rule_for_all_chunks_needs_their_timesteps():
    policy = Policy("teacache", JointReuse(**vars(REUSE)), "stale", cache=CacheOf(RepeatResidual))
    assert plan_for(SKYREELS, 6, policy).timesteps
    with pytest.raises(ValueError, match="MAGI-1 has no policy 'teacache'"):
        plan_for(MAGI, 8, policy)

    class Untold(SamplerSettings):
        def plan(self, frames, policy, given=0):
            made = super().plan(frames, policy, given)
            return type(made)(**vars(made) | {"timesteps": ()})

    with pytest.raises(ValueError, match="'teacache': JointReuse decides by the timesteps of all chunks"):
        plan_for(Untold(**vars(SKYREELS)), 6, policy)
