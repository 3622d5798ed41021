"""When a step is computed: each rule decides for all chunks of a row at once."""

from dataclasses import replace

import torch

from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Counted, CountedReuse, Jointly, JointReuse, PerChunk, Reuse
from flowcache.cache.step_rule import ComputeAll

REUSE = Reuse(threshold=1.0, warmup_steps=1, coefficients=(1.0, 0.0))


def decided(rule, row, steps, values):
    """Marks by chunk; values: of each chunk's signal, and by None of the whole window's."""
    decisions = rule.decide(row, steps, lambda chunk: torch.tensor([float(values[chunk])]))
    return {chunk: decision.compute for chunk, decision in decisions.items()}


def rule_of(policy):
    return policy.step_rule(steps=4, rows=6, total=lambda sums: sums)


def test_without_reuse_no_signal_is_asked_for():
    rule = rule_of(Policy("off"))
    assert isinstance(rule, ComputeAll) and decided(rule, 0, {1: 0, 3: 2}, {}) == {1: True, 3: True}


def test_each_chunk_goes_by_its_own_signal():
    rule = rule_of(Policy("p", REUSE, "stale"))
    assert isinstance(rule, PerChunk)
    assert decided(rule, 0, {0: 0}, {0: 1}) == {0: True}
    assert decided(rule, 1, {0: 1, 1: 0}, {0: 1.5, 1: 1}) == {0: False, 1: True}  # 0.5 of change
    assert decided(rule, 2, {0: 2, 1: 1}, {0: 3, 1: 1}) == {0: True, 1: False}  # 0.5 + 1, and none
    assert decided(rule, 3, {0: 3, 1: 2}, {0: 3, 1: 1}) == {0: True, 1: False}  # a chunk's last step
    rule.forget(0)
    assert set(rule.states) == {1}


def test_a_chunks_own_last_step_counts_where_the_policy_says_so():
    rule = rule_of(Policy("p", replace(REUSE, last_step=False), "stale"))
    decided(rule, 0, {0: 0}, {0: 1})
    assert decided(rule, 4, {0: 3}, {0: 1}) == {0: False}
    assert decided(rule, 5, {0: 3}, {0: 1}) == {0: True}  # the last row of all


def test_one_decision_for_the_window_and_what_begins_is_computed():
    rule = rule_of(Policy("p", JointReuse(**vars(REUSE)), "stale"))
    assert isinstance(rule, Jointly)
    assert decided(rule, 0, {0: 0}, {None: 1}) == {0: True}
    assert decided(rule, 1, {0: 1}, {None: 1}) == {0: False}
    assert decided(rule, 2, {0: 2, 1: 0}, {None: 1}) == {0: True, 1: True}
    assert decided(rule, 3, {0: 3, 1: 1}, {None: 1.5}) == {0: False, 1: False}
    assert decided(rule, 5, {1: 3}, {None: 1.5}) == {1: True}


def counted(cycle, branches, values):
    """By row and branch: whether it is computed, and whose residual it has."""
    policy = Policy("p", CountedReuse(1.0, 1, (1.0, 0.0)))
    rule = policy.step_rule(steps=4, rows=99, total=lambda sums: sums, cycle=cycle, branches=branches)
    assert isinstance(rule, Counted)
    rows = []
    for row, value in enumerate(values):
        decision = rule.decide(row, {0: row, 1: row}, lambda chunk, value=value: torch.tensor([float(value)]))[1]
        rows.append([(decision.of(branch).compute, decision.of(branch).slot) for branch in range(branches)])
    return rows


def test_official_teacache_counts_forwards_and_begins_anew_in_the_middle():
    both = [[(True, 0), (True, 1)], [(False, 0), (False, 1)]]
    assert counted(4, 2, [1, 1, 1, 1]) == both + both


def test_official_teacache_swaps_branches_where_its_cycle_is_odd():
    first, second, third, *_ = counted(3, 2, [1, 1, 1])
    assert first == [(True, 0), (True, 1)]
    assert second == [(False, 0), (True, 0)]  # the second branch begins anew, as if it were the first
    assert third == [(True, 1), (False, 0)]


def test_official_teacache_has_two_states_for_a_single_branch():
    assert counted(6, 1, [1, 1, 1, 1]) == [[(True, 0)], [(True, 1)], [(False, 0)], [(False, 1)]]


def test_a_window_whose_frames_begin_to_differ_has_changed_as_much_as_their_mean():
    """At first all frames share a timestep, and the signal has one row."""
    rule = rule_of(Policy("p", JointReuse(0.6, 1, (1.0, 0.0)), "stale"))
    rule.decide(0, {0: 0}, lambda chunk: torch.ones(1, 1))
    decision = rule.decide(1, {0: 1}, lambda chunk: torch.tensor([[2.0], [1.0]]))[0]
    assert decision.distance == 0.5 and not decision.compute
