"""Which settings a run measures."""

import pytest

from flowcache.bench.names import ALL, KNOWN, KV, KV_ALL, OFF, Entry, entries
from flowcache.errors import InputError


def test_all_names_every_policy_and_demands_none():
    found, own = entries("all")
    assert set(found) == set(ALL) and len(found) == len(ALL) and not own
    kept, own = entries("kv")
    assert set(kept) == set(KV) and len(kept) == len(KV) and not own
    assert {entry.policy for entry in found + kept} == set(KNOWN) and not {*found} & {*kept}
    assert entries("kv,all")[0] == found + kept


def test_chosen_kv_never_come_without_as_many_of_the_latest():
    found, own = entries("kv-compressed:8,kv-sink:4,kv-sink:2+3,kv-sink:1+3")
    labels = [entry.label for entry in found]
    assert labels == ["kv-recent:8", "kv-recent:4", "kv-recent:5", "kv-sink:1+3", "kv-sink:2+3", "kv-compressed:8"]
    assert own == {entry for entry in found if entry.policy != "kv-recent"}
    assert {entry.reference for entry in found} == {KV_ALL} and Entry("paper", "slow").reference == OFF


def test_ours_never_comes_without_as_many_fewer_steps():
    found, own = entries("flowcache:.30, paper:fast")
    assert [entry.label for entry in found] == ["flowcache:0.3", "fewer-steps:0.3", "paper:fast"]
    assert own == {Entry("flowcache", "0.3"), Entry("paper", "fast")}


def test_what_is_named_twice_is_measured_once_and_settings_have_defaults():
    found, _ = entries("magcache,magcache:0.12,taylorseer,paper,all")
    assert len(found) == len(ALL) and Entry("magcache", "0.12") in found and Entry("paper", "slow") in found


@pytest.mark.parametrize("text", ["", "flow", "all,flow", "off"])
def test_unknown_names_are_refused_with_the_known_ones(text):
    with pytest.raises(InputError) as refused:
        entries(text)
    assert str(refused.value).startswith("--policies: got ")
    assert all(name in str(refused.value) for name in (*KNOWN, "or all", "or kv"))


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("flowcache", "a share of off's chunk forwards above 0"),
        ("flowcache:0", "a share of off's chunk forwards above 0"),
        ("fewer-steps:1.1", "a share of off's chunk forwards above 0"),
        ("fewer-steps:nan", "a share of off's chunk forwards above 0"),
        ("taylorseer:0", "1 to 1000"),
        ("taylorseer:2.5", "1 to 1000"),
        ("magcache:-1", "above 0"),
        ("paper:", "a preset"),
        ("kv-recent", "1 to 1000"),
        ("kv-compressed:0", "1 to 1000"),
        ("kv-recent:0.5", "1 to 1000"),
        ("kv-sink:1", "2 to 1001 chunks"),
        ("kv-sink:0+4", "as in 2+6"),
        ("kv-sink:2+", "as in 2+6"),
    ],
)
def test_a_setting_out_of_range_is_refused(text, accepted):
    with pytest.raises(InputError, match="accepted after") as refused:
        entries(text)
    assert accepted in str(refused.value) and repr(text) in str(refused.value)
