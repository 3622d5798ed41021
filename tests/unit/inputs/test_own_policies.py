"""Rows where families declare policies of their own, and the same names with other ranges."""

import json
import math
import pickle
from dataclasses import replace
from itertools import starmap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowcache.families import known
from flowcache.families.policy_settings import KV_SETTINGS, SETTINGS, PolicyDeclaration, shared
from flowcache.families.setting import Choice, Group, Number, Preset
from flowcache.families.settings import policy_faults, resolve_policy
from flowcache.families.skyreels.family import SkyReels
from flowcache.inputs.lines import Line
from flowcache.inputs.manifest import validate
from flowcache.inputs.policy_schema import sentence
from flowcache.inputs.schema import RowDefaults
from flowcache.records import ModelSpec


def declared(order: Number, **settings) -> tuple[PolicyDeclaration, ...]:
    return PolicyDeclaration("off"), PolicyDeclaration("series", {"order": order, **settings})


class Clashing(SkyReels):
    """Uses words that mean something else elsewhere, in a policy of its own and in one that others have, too."""

    name = "clashing"
    policies = (
        PolicyDeclaration("off"),
        PolicyDeclaration("own", {"warm": Number(1, 3, also="warmup_steps"), "order": Number(1, 3, also="threshold")}),
        PolicyDeclaration("aimed", {"target": Number(0, 1), "quality_floor": Number(0, 1)}),
        PolicyDeclaration("within", shared("budget")),
        PolicyDeclaration("bare", {"warmup_steps": Number(1, 3), "renoise": Choice(("some", "all"))}),
        PolicyDeclaration(
            "paper",
            {"warm": Number(1, 3, also="warmup_steps"), "kv": Group({"bits": Number(2, 8)}, "an object", ("bits",))},
        ),
    )


class Low(SkyReels):
    name = "low"
    policies = declared(
        Number(1, 3, whole=True, default=2, also="degree", means=lambda order: {"clean": order, "kv_update": "stale"}),
        basis=Group({"kind": Choice(("taylor", "hermite")), "scale": Number(0, 1)}, "an object with kind", ("kind",)),
    )


class High(SkyReels):
    name = "high"
    policies = (
        *declared(Number(0, 9)),
        PolicyDeclaration("tuned", {"preset": Preset(of=lambda spec: dict(spec.pipeline))}),
    )


@pytest.fixture(autouse=True)
def families(monkeypatch):
    for each in (Low(), High(), Clashing()):
        monkeypatch.setitem(known.BUILT_IN, each.name, each)
    known._policies.cache_clear()
    yield
    known._policies.cache_clear()


def spec_of(name: str) -> ModelSpec:
    slow = {"threshold": 0.1, "ret_steps": 5, "coefficients": [2.0, 0.0]}
    pipeline = ("first", 1), ("second", 2)
    return ModelSpec(name, name, "path", "digest", 5, 25, 5, 16, reuse={"slow": slow}, pipeline=pipeline)


def asked(model: str, policy, **said):
    """The policy as the request keeps it, or what is said of it."""
    rows = [(1, {"prompt": "a", "model": model, "policy": policy, **said})]
    found, problems, _ = validate(starmap(Line, rows), "m", spec_of, RowDefaults(), lambda *media: None)
    return found[0].policy if found else [f"{problem.field}: {problem.message}" for problem in problems]


def test_each_family_has_its_own_range():
    whole, low = "a whole number from 1 to 3", {"name": "series", "order": 2}
    assert asked("low", low) == low and type(asked("low", {"name": "series", "order": 2.0})["order"]) is int
    assert type(asked("high", low)["order"]) is float  # which numbers are whole there is not said
    assert asked("high", {"name": "series", "order": 4.5}) == {"name": "series", "order": 4.5}
    for order in (4.5, 9, 0):
        assert asked("low", {"name": "series", "order": order}) == [f"policy.order: got {order}; accepted: {whole}"]
    assert asked("high", {"name": "series", "order": 10}) == ["policy.order: got 10; accepted: a number from 0 to 9"]
    assert asked("skyreels", low) == [
        "policy.name: got 'series'; accepted for models of family skyreels: off, dense, paper, teacache, flowcache, "
        "paper-mended"
    ]


def test_other_names_and_objects_with_settings():
    assert asked("low", {"name": "series", "degree": 3}) == {"name": "series", "order": 3}
    assert asked("low", {"name": "series", "degree": 3, "order": 1}) == [
        "policy.degree: is given together with order, which means the same; accepted: one of the two"
    ]
    both = {"name": "series", "basis": {"kind": "taylor", "scale": 1}}
    assert asked("low", both) == both
    assert asked("low", {"name": "series", "basis": {"kind": "fourier", "scal": 1}}) == [
        "policy.basis.kind: got 'fourier'; accepted: 'taylor' or 'hermite'",
        "policy.basis.scal: is no known field; did you mean 'scale'?",
    ]
    assert asked("low", {"name": "series", "basis": {}}) == [
        "policy.basis.kind: is missing; accepted: 'taylor' or 'hermite'"
    ]
    assert asked("low", {"name": "series", "basis": 1}) == ["policy.basis: got 1; accepted: an object with kind"]
    assert asked("high", {"name": "series", "basis": {"kind": "taylor"}}) == [
        "policy.basis: does not go with name 'series'; accepted: order"
    ]


def test_a_default_is_told_to_the_policy_and_stays_out_of_the_request():
    assert asked("low", "series") == {"name": "series"}
    assert resolve_policy({"name": "series"}, spec_of("low")).clean == 2
    assert resolve_policy({"name": "series", "degree": 3}, spec_of("low")).clean == 3
    with pytest.raises(ValueError, match="policy order must be a whole number from 1 to 3, not 4"):
        resolve_policy({"name": "series", "order": 4}, spec_of("low"))


def test_presets_are_where_the_policy_says():
    assert asked("high", "tuned:second") == {"name": "tuned", "preset": "second"}
    assert asked("high", "tuned") == {"name": "tuned", "preset": "first"}
    assert asked("high", "tuned:third") == ["policy.preset: got 'third'; accepted with high: 'first' or 'second'"]
    assert sentence().startswith(
        "'off', 'series', 'own', 'aimed', 'within', 'bare', 'paper', 'flowcache', 'paper-mended', 'dense', 'teacache' "
        "or 'tuned', these six also"
    )


def test_words_that_mean_something_else_elsewhere():
    aimed = {"name": "aimed", "target": 0.5, "quality_floor": 0.5}
    assert asked("clashing", aimed) == aimed  # of no budget
    within = {"name": "within", "budget": 0.5}
    assert asked("clashing", within, solver="corrected") == within  # which knows no target
    for name in ("paper", "flowcache", "teacache"):
        kept = {"name": name, "ret_steps": 3, "preset": "slow"}
        assert asked("skyreels", {"name": name, "warmup_steps": 3}) == kept
        assert resolve_policy(kept, spec_of("skyreels")).reuse.warmup_steps == 3
    assert asked("clashing", {"name": "own", "warmup_steps": 2}) == {"name": "own", "warm": 2.0}
    assert asked("clashing", {"name": "own", "threshold": 2}) == {"name": "own", "order": 2.0}
    assert asked("clashing", {"name": "bare", "warmup_steps": 2}) == {"name": "bare", "warmup_steps": 2.0}
    assert asked("clashing", {"name": "bare", "renoise": "all"}) == {"name": "bare", "renoise": "all"}
    assert asked("clashing", {"name": "paper", "warmup_steps": 2}) == {"name": "paper", "warm": 2.0}
    assert asked("clashing", {"name": "paper", "warmup_steps": 4}) == [
        "policy.warmup_steps: got 4; accepted: a number from 1 to 3"
    ]
    assert asked("skyreels", {"name": "paper", "warmup_steps": 1, "ret_steps": 1}) == [
        "policy.warmup_steps: is given together with ret_steps, which means the same; accepted: one of the two"
    ]
    assert asked("clashing", {"name": "paper", "kv": {"bits": 9}}) == [
        "policy.kv.bits: got 9; accepted: a number from 2 to 8"
    ]
    assert asked("skyreels", {"name": "paper", "kv": {"keep": "recent", "chunks": "x"}}) == [
        "policy.kv.chunks: got 'x'; accepted: a whole number of chunks from 1 to 1,000"
    ]


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({"threshold": "high"}, "preset 'slow' of skyreels: threshold must be a number from 0 to 100, not 'high'"),
        ({"coefficients": 1.5}, "policy 'paper' can't be made as family skyreels declares it: TypeError"),
        ({}, ""),
    ],
)
def test_what_only_making_a_policy_tells_is_told_before_work_starts(preset, message):
    spec = spec_of("skyreels")
    spec = replace(spec, reuse={"slow": spec.reuse["slow"] | preset})
    rows = [(n, {"prompt": f"{n}", "model": "skyreels", "policy": "paper"}) for n in (1, 2)]
    found, _, _ = validate(starmap(Line, rows), "m", lambda name: spec, RowDefaults(), lambda *media: None)
    problems = policy_faults(found, {"skyreels": spec}, "m")
    assert [problem.video for problem in problems] == [found[0].id] * bool(message)
    assert all(problem.message.startswith(message) for problem in problems)


values = st.one_of(
    st.sampled_from(
        [True, False, None, "slow", "first", "", "all", "recent", "taylor", 5.0, math.nan, math.inf, 10**30]
    ),
    st.integers(-1, 1001),
    st.floats(0, 10),
)
keys = st.sampled_from([*SETTINGS, "warmup_steps", "order", "degree", "basis", "warm", "x"])
objects = st.dictionaries(st.sampled_from([*KV_SETTINGS, "kind", "scale", "bits"]), values, max_size=3)
names = st.sampled_from(["off", "dense", "paper", "teacache", "flowcache", "series", "tuned", "own", "bare", "x", None])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)
@given(
    st.sampled_from(["skyreels", "low", "high", "clashing"]), names, st.dictionaries(keys, values | objects, max_size=3)
)
def test_what_a_row_may_say_can_be_resolved_and_is_kept_as_it_is(model, name, said):
    found = asked(model, {**said, "name": name})
    if isinstance(found, list):
        assert found and all(fault.startswith("policy") and ": " in fault for fault in found)
        return
    assert json.dumps(asked(model, found), sort_keys=True) == json.dumps(found, sort_keys=True)  # as identities have it
    policy = resolve_policy(found, spec_of(model))
    assert policy.name == name and hash(policy) is not None and pickle.loads(pickle.dumps(policy)) == policy
