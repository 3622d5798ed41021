"""The reuse policy: pure decisions, and names that users may write."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.cache.kv_select import Compression, Sink
from flowcache.cache.policy import Policy, resolve_policy
from flowcache.cache.policy_settings import KEEP, KEYS, POLICIES
from flowcache.cache.reuse import Reuse, ReuseState, decide, relative_change
from flowcache.inputs import schema
from flowcache.records import ModelSpec

PRESETS = {
    "slow": {"threshold": 0.1, "ret_steps": 5, "coefficients": [2.0, 0.0]},
    "fast": {"threshold": 0.2, "ret_steps": 1, "coefficients": [2.0, 0.0]},
}
SPEC = ModelSpec("tiny", "skyreels", "path", "digest", chunk=3, window=15, overlap=3, channels=16, reuse=PRESETS)

signals = st.lists(st.floats(0.1, 10), min_size=1, max_size=30)
reuses = st.builds(
    Reuse, st.floats(-1, 5), st.integers(0, 6), st.lists(st.floats(-5, 5), min_size=1, max_size=5).map(tuple)
)


def walk(reuse, values, steps=None):
    state, decisions = ReuseState(), []
    for step, value in enumerate(values):
        decision, state = decide(reuse, state, torch.tensor([value, 2 * value]), step, steps or len(values))
        decisions.append(decision)
    return decisions


@settings(deadline=None)
@given(reuses, signals)
def test_decisions_are_pure_and_ends_are_computed(reuse, values):
    decisions = walk(reuse, values)
    assert decisions == walk(reuse, values)
    assert decisions[0].compute and decisions[-1].compute
    assert all(decision.compute for decision in decisions[: reuse.warmup_steps])


@settings(deadline=None)
@given(reuses, signals)
def test_sum_grows_until_a_step_is_computed(reuse, values):
    total = 0.0
    for decision in walk(reuse, values):
        if decision.accumulated is None:
            total = 0.0
            continue
        total += decision.estimate
        assert decision.accumulated == total and decision.compute == (total >= reuse.threshold)
        total = 0.0 if decision.compute else total


def test_the_signal_is_compared_with_the_last_step_even_if_skipped():
    decisions = walk(Reuse(1e9, 1, (1.0, 0.0)), [1.0, 2.0, 4.0, 8.0])
    assert [decision.distance for decision in decisions] == [None, 1.0, 1.0, None]


@settings(deadline=None)
@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=6), st.floats(0, 2))
def test_estimate_is_the_polynomial(coefficients, distance):
    expected = np.polyval(coefficients, distance)
    assert math.isclose(Reuse(0, 0, tuple(coefficients)).estimate(distance), expected, rel_tol=1e-9, abs_tol=1e-6)


def test_relative_change():
    assert relative_change(torch.tensor([1.0, -3.0]), torch.tensor([2.0, -2.0])) == 0.5


def test_off_always_computes():
    assert all(decision.compute and decision.distance is None for decision in walk(None, [1.0, 9.0, 1.0]))


def test_resolve():
    assert resolve_policy({"name": "off"}, SPEC) == Policy("off") == resolve_policy({}, SPEC)
    slow = Policy("paper", Reuse(0.1, 5, (2.0, 0.0)), kv_update="stale")
    assert resolve_policy({"name": "paper"}, SPEC) == slow == resolve_policy({"name": "paper", "preset": "slow"}, SPEC)
    fast = resolve_policy({"name": "paper", "preset": "fast", "threshold": 0.5, "ret_steps": 3}, SPEC)
    assert fast.reuse == Reuse(0.5, 3, (2.0, 0.0))


def test_every_ingredient_can_be_switched():
    slow = Reuse(0.1, 5, (2.0, 0.0))
    assert resolve_policy({"name": "flowcache"}, SPEC) == Policy("flowcache", slow, "refresh")
    assert resolve_policy({"name": "flowcache", "reuse": False}, SPEC) == Policy("flowcache", None, "refresh")
    assert resolve_policy({"name": "flowcache", "refresh": False}, SPEC) == Policy("flowcache", slow, "stale")
    assert resolve_policy({"name": "paper", "refresh": True}, SPEC) == Policy("paper", slow, "refresh")
    assert resolve_policy({"name": "teacache"}, SPEC) == Policy("teacache", slow, "refresh", joint=True)
    assert resolve_policy({"name": "paper", "renoise": True}, SPEC).renoise
    bare = replace(SPEC, reuse={})
    assert resolve_policy({"name": "flowcache", "reuse": False}, bare).reuse is None


@pytest.mark.parametrize(
    ("kv", "clean", "compression"),
    [
        ({"keep": "all"}, None, None),
        ({"keep": "recent", "chunks": 2}, 2, None),
        ({"keep": "sink", "first": 1, "chunks": 2}, 3, Sink(1, 2)),
        ({"keep": "compressed", "chunks": 1}, 1, Compression(0.07)),
        ({"keep": "compressed", "chunks": 4, "by": "frame", "mix": 0.5}, 4, Compression(0.5, by="frame")),
    ],
)
def test_what_is_kept_of_finished_chunks(kv, clean, compression):
    policy = resolve_policy({"name": "paper", "kv": kv}, SPEC)
    assert (policy.clean, policy.compression) == (clean, compression)


def test_settings_agree_with_what_people_may_write():
    """The plain table that the engine uses, and the pydantic models of rows and jobs."""
    assert set(schema.Policy.model_fields) == set(KEYS)
    assert set(get_args(schema.Policy.model_fields["name"].annotation)) == set(POLICIES)
    assert get_args(schema.KV.model_fields["keep"].annotation) == tuple(KEEP)
    named = {key for needed, allowed in KEEP.values() for key in (*needed, *allowed)}
    assert set(schema.KV.model_fields) == {"keep", *named}
    assert all(f"policy.{key}" in schema.ACCEPTS for key in KEYS)
    assert all(f"policy.kv.{key}" in schema.ACCEPTS for key in schema.KV.model_fields)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"name": "off", "kv": {"keep": "all"}}, "kv does not go with name 'off'"),
        ({"name": "paper", "reuse": False}, "reuse does not go with name 'paper'"),
        ({"name": "flowcache", "reuse": False, "threshold": 1}, "threshold does not go with reuse false"),
        ({"name": "paper", "kv": {"keep": "some"}}, "kv.keep got 'some'; accepted: 'all', 'recent'"),
        ({"name": "paper", "kv": {"keep": "recent"}}, "kv.chunks is missing"),
        ({"name": "paper", "kv": {"keep": "sink", "chunks": 1}}, "kv.first is missing"),
        ({"name": "paper", "kv": {"keep": "all", "by": "frame"}}, "kv.by does not go with keep 'all'"),
        ({"name": "paper", "kv": {"keep": "recent", "chunks": 0}}, "kv.chunks must be .* 1 or more, not 0"),
        ({"name": "paper", "kv": {"keep": "recent", "chunks": True}}, "kv.chunks must be .* not True"),
        ({"name": "paper", "kv": {"keep": "compressed", "chunks": 1, "by": "row"}}, "kv.by must be .* not 'row'"),
        ({"name": "paper", "kv": {"keep": "compressed", "chunks": 1, "mix": 2}}, "kv.mix must be .* not 2"),
        ({"name": "paper", "renoise": True, "kv": {"keep": "recent", "chunks": 1}}, "renoise does not go with kv"),
        ({"name": "papre"}, "unknown policy 'papre'; accepted: off, dense, paper"),
        ({"name": "paper", "preset": "medium"}, "unknown preset 'medium'.*accepts: slow, fast"),
        ({"name": "paper", "threshold": math.nan}, "threshold must be a finite number, not nan"),
        ({"name": "paper", "threshold": "0.1"}, "threshold must be a finite number, not '0.1'"),
        ({"name": "paper", "ret_steps": -1}, "ret_steps must be a whole number .* not -1"),
        ({"name": "paper", "ret_steps": 2.5}, "ret_steps must be a whole number .* not 2.5"),
        ({"name": "paper", "treshold": 1}, "unknown policy settings treshold; accepted: name, preset, threshold"),
    ],
)
def test_unknown_names_are_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        resolve_policy(policy, SPEC)
