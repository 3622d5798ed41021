"""What a policy may be told: declared once, read by rows, resolver and manual alike."""

import math
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from flowcache.cache import kv_select
from flowcache.cache.kv_select import Compression, Sink
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import CountedReuse, JointReuse, Reuse
from flowcache.families.magi.family import FAMILY as MAGI
from flowcache.families.policy_settings import (
    KEEP,
    KV_SETTINGS,
    SETTINGS,
    UNITS,
    WEIGHTINGS,
    PolicyDeclaration,
    by_name,
    unsound,
)
from flowcache.families.registry import find
from flowcache.families.setting import Choice, Group, Number
from flowcache.families.settings import policy_faults, resolve_policy
from flowcache.families.skyreels import published
from flowcache.families.skyreels.family import FAMILY as SKYREELS
from flowcache.inputs import schema
from flowcache.inputs.policy_schema import sentence
from flowcache.records import ModelSpec, RenderRequest, Shot

PRESETS = {
    "slow": {"threshold": 0.1, "ret_steps": 5, "coefficients": [2.0, 0.0]},
    "fast": {"threshold": 0.2, "ret_steps": 1, "coefficients": [2.0, 0.0]},
}
SPEC = ModelSpec("tiny", "skyreels", "path", "digest", chunk=3, window=15, overlap=3, channels=16, reuse=PRESETS)


def test_resolve():
    assert resolve_policy({"name": "off"}, SPEC) == Policy("off") == resolve_policy({}, SPEC)
    slow = Policy("paper", Reuse(0.1, 5, (2.0, 0.0)), kv_update="stale")
    assert resolve_policy({"name": "paper"}, SPEC) == slow == resolve_policy({"name": "paper", "preset": "slow"}, SPEC)
    fast = resolve_policy({"name": "paper", "preset": "fast", "threshold": 0.5, "ret_steps": 3}, SPEC)
    assert fast.reuse == Reuse(0.5, 3, (2.0, 0.0))


def test_dense_reuses_as_the_official_teacache_where_a_row_says_so():
    dense = Policy("dense", attention="full")
    assert resolve_policy({"name": "dense"}, SPEC) == dense
    slow = replace(dense, reuse=CountedReuse(0.1, 5, (2.0, 0.0)))
    assert resolve_policy({"name": "dense", "preset": "slow"}, SPEC) == slow and slow.whole
    assert resolve_policy({"name": "dense", "threshold": 0.3}, SPEC).reuse == CountedReuse(0.3, 5, (2.0, 0.0))
    timed = replace(SPEC, reuse=published.presets("1.3B"))
    presets = {name: resolve_policy({"name": "dense", "preset": name}, timed).reuse.signal for name in timed.reuse}
    assert presets == {"slow": "blocks", "fast": "blocks", "slow-noret": "time", "fast-noret": "time"}
    assert type(resolve_policy({"name": "paper", "preset": "slow-noret"}, timed).reuse) is Reuse


def test_every_ingredient_can_be_switched():
    slow = Reuse(0.1, 5, (2.0, 0.0))
    assert resolve_policy({"name": "flowcache"}, SPEC) == Policy("flowcache", slow, "refresh")
    assert resolve_policy({"name": "flowcache", "reuse": False}, SPEC) == Policy("flowcache", None, "refresh")
    assert resolve_policy({"name": "flowcache", "refresh": False}, SPEC) == Policy("flowcache", slow, "stale")
    assert resolve_policy({"name": "paper", "refresh": True}, SPEC) == Policy("paper", slow, "refresh")
    assert resolve_policy({"name": "teacache"}, SPEC) == Policy("teacache", JointReuse(**vars(slow)), "refresh")
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


def test_what_people_may_write_is_what_is_declared():
    with pytest.raises(ValidationError) as unknown:
        schema.Policy.model_validate({"name": "flowcache", "kv": {"keep": "all", "": 0}, "": 0})
    within, beside = (set(found["msg"].split("known are ")[1].split(", ")) for found in unknown.value.errors())
    assert (within, beside) == (set(KV_SETTINGS), {"name", *SETTINGS})
    assert {"keep", *(key for needed, allowed in KEEP.values() for key in (*needed, *allowed))} == set(KV_SETTINGS)
    assert all(repr(policy.name) in sentence() for policy in (*SKYREELS.policies, *MAGI.policies))
    assert (UNITS, WEIGHTINGS) == (get_args(kv_select.Unit), get_args(kv_select.Weighting))


VALUES = {Number: [0, 0.5, 1, 2.5, 100, 101, 1000, 1001, -1, True, "1"], Choice: ["chunk", "sink", "row", 1]}


@pytest.mark.parametrize(
    ("name", "setting"),
    [*((k, s) for k, s in SETTINGS.items() if k != "kv"), *((f"kv.{k}", s) for k, s in KV_SETTINGS.items())],
)
def test_rows_and_the_resolver_take_the_same_values(name, setting):
    """Whichever is asked, a value is in the declared range or is not."""
    for value in VALUES.get(type(setting), [True, False, 1, "x"]):
        if name.startswith("kv."):
            written = {"name": "flowcache", "kv": {"keep": "all"} | {name.removeprefix("kv."): value}}
        else:
            written = {"name": "flowcache", name: value}
        try:
            schema.Policy.model_validate(written)
        except ValidationError as error:
            faults = [".".join(map(str, fault["loc"])) for fault in error.errors()]
            assert faults == [name] and not setting.takes(value), (written, faults)
        else:
            assert setting.takes(value), written


ORDER = Number(1, 3)


@pytest.mark.parametrize(
    ("name", "settings", "fault"),
    [
        ("", {}, "its name is none"),
        ("a:b", {}, "its name is none"),
        (3, {}, "its name is none"),
        ("own", {"a b": ORDER}, "'a b' is no name of a setting"),
        ("own", {3: ORDER}, "3 is no name of a setting"),
        ("own", {"name": ORDER}, "'name' means two things"),
        ("own", {"order": Number(1, 3, also="name")}, "'name' means two things"),
        ("own", {"order": Number(1, 3, also="degree"), "degree": ORDER}, "'degree' means two things"),
        ("own", {"order": Number}, "setting 'order' is no Setting but"),
        ("own", {"order": Number(None, 3)}, "setting 'order' can't be asked what it accepts"),
        ("own", {"order": Choice(())}, "setting 'order' can't be asked what it accepts"),
        ("own", {"order": Choice(frozenset({"a"}))}, "setting 'order' can't be asked what it accepts: unhashable"),
        (
            "own",
            {"order": Number(1, 3, default=4)},
            "the default 4 of 'order' is not accepted; accepted: a number from",
        ),
        ("own", {"basis": Group({"kind": Choice(())}, "an object")}, "within 'basis': setting 'kind' can't be asked"),
    ],
)
def test_unsound_declarations_are_known_without_a_row(name, settings, fault):
    found = unsound([PolicyDeclaration("off"), PolicyDeclaration(name, settings)])
    assert found.startswith(f"policy {name!r}: {fault}")


@pytest.mark.parametrize("family", [SKYREELS, MAGI])
def test_families_declare_policies_that_can_be_resolved(family):
    spec = replace(SPEC, family=family.name)
    assert len(by_name(family.policies)) == len(family.policies) and not unsound(family.policies)
    for declared in family.policies:
        found = resolve_policy({"name": declared.name}, spec)
        reuses = bool(declared.settings) and declared.reuses
        assert (found.name, found.reuse is not None) == (declared.name, reuses)
        assert all(getattr(found, field) == value for field, value in declared.fields.items())
        assert pickle.loads(pickle.dumps(found)) == found and hash(found)


def test_warmup_steps_is_another_name():
    preset = {"warmup_steps": 5, "threshold": 0.1, "coefficients": [2.0, 0.0]}
    other = replace(SPEC, reuse=PRESETS | {"slow": preset})
    assert resolve_policy({"name": "paper"}, other) == resolve_policy({"name": "paper"}, SPEC)
    asked = {"name": "paper", "warmup_steps": 3}
    assert resolve_policy(asked, SPEC).reuse.warmup_steps == 3
    assert schema.Policy.model_validate(asked).model_dump(exclude_none=True) == {"name": "paper", "ret_steps": 3}


def test_the_manual_lists_every_setting_with_its_range_and_family():
    text = (Path(__file__).parents[3] / "docs" / "manifest.md").read_text()
    table = re.search(r"^\| Setting \| Range .*?\n\n", text, re.M | re.S)[0]
    rows = dict(re.findall(r"^\| `(\w+)`(?:, `\w+`)? \| (.*)$", table, re.M))
    declared = {
        key: each for family in (SKYREELS, MAGI) for policy in family.policies for key, each in policy.settings.items()
    }
    assert set(rows) == set(declared)
    for key, setting in declared.items():
        if isinstance(setting, Number):
            assert rows[key].startswith(f"{setting.low:,} to {setting.high:,}")
            assert setting.also is None or f"| `{key}`, `{setting.also}` |" in table
        knows = [family.name for family in (SKYREELS, MAGI) if any(key in p.settings for p in family.policies)]
        only = {"SkyReels-V2:": ["skyreels"], "MAGI-1:": ["magi"], "MAGI-1, distilled:": ["magi"]}
        assert knows == next(
            (names for start, names in only.items() if rows[key].startswith(start)), ["skyreels", "magi"]
        )


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"name": "off", "kv": {"keep": "all"}}, "kv does not go with name 'off'"),
        (
            {"name": "flowcache", "quality_floor": 1.0},
            "quality_floor is what a budget is raised by; accepted: with budget",
        ),
        (
            {"name": "flowcache", "budget": 0.5, "quality_floor": 0},
            "quality_floor must be a number above 0, at most 100, not 0",
        ),
        ({"name": "paper", "reuse": False}, "reuse does not go with name 'paper'"),
        ({"name": "flowcache", "reuse": False, "threshold": 1}, "threshold does not go with reuse false"),
        ({"name": "paper", "kv": {"keep": "some"}}, "kv.keep got 'some'; accepted: 'all', 'recent'"),
        ({"name": "paper", "kv": {"keep": "recent"}}, "kv.chunks is missing"),
        ({"name": "paper", "kv": {"keep": "sink", "chunks": 1}}, "kv.first is missing"),
        ({"name": "paper", "kv": {"keep": "all", "by": "frame"}}, "kv.by does not go with keep 'all'"),
        (
            {"name": "paper", "kv": {"keep": "recent", "chunks": 0}},
            "kv.chunks must be .* from 1 to 1,000, not 0",
        ),
        ({"name": "paper", "kv": {"keep": "recent", "chunks": True}}, "kv.chunks must be .* not True"),
        ({"name": "paper", "kv": {"keep": "compressed", "chunks": 1, "by": "row"}}, "kv.by must be .* not 'row'"),
        ({"name": "paper", "kv": {"keep": "compressed", "chunks": 1, "mix": 2}}, "kv.mix must be .* not 2"),
        ({"name": "paper", "renoise": True, "kv": {"keep": "recent", "chunks": 1}}, "renoise does not go with kv"),
        ({"name": "papre"}, "unknown policy 'papre'; accepted: off, dense, paper"),
        ({"name": "paper", "preset": "medium"}, "unknown preset 'medium'.*accepts: slow, fast"),
        ({"name": "paper", "threshold": math.nan}, "threshold must be a number from 0 to 100, not nan"),
        ({"name": "paper", "threshold": "0.1"}, "threshold must be a number from 0 to 100, not '0.1'"),
        ({"name": "paper", "ret_steps": -1}, "ret_steps must be a whole number .* not -1"),
        ({"name": "paper", "ret_steps": 2.5}, "ret_steps must be a whole number .* not 2.5"),
        ({"name": "paper", "treshold": 1}, "unknown policy settings treshold; accepted: name, preset, threshold"),
    ],
)
def test_unknown_names_are_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        resolve_policy(policy, SPEC)


def test_a_preset_out_of_range_is_named():
    with pytest.raises(ValueError, match="preset 'slow' of tiny: ret_steps must be a whole number .* not 2.5"):
        resolve_policy({"name": "paper"}, replace(SPEC, reuse={"slow": PRESETS["slow"] | {"ret_steps": 2.5}}))


@pytest.mark.parametrize("size", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("policy", [{"name": "off"}, {"name": "dense"}, {"name": "paper", "preset": "slow"}])
def test_a_policy_is_tried_on_chunks_of_the_length_that_the_row_asks_for(size, policy):
    spec = find("tiny-skyreels")
    asked = RenderRequest(
        "a",
        (Shot("a red circle", 1 + 4 * (size - 1)),),
        64,
        64,
        12,
        0,
        6.0,
        8,
        spec.name,
        policy,
        causal_block_size=size,
    )
    assert policy_faults([asked], {spec.name: spec}, "m.jsonl") == []
