"""Which settings a run measures."""

import pytest

from flowcache.bench.names import ALL, KNOWN, Entry, entries
from flowcache.errors import InputError


def test_all_names_every_policy_and_demands_none():
    found, own = entries("all")
    assert set(found) == set(ALL) and len(found) == len(ALL) and not own
    assert {entry.policy for entry in found} == set(KNOWN)


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
    assert all(name in str(refused.value) for name in (*KNOWN, "or all"))


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
    ],
)
def test_a_setting_out_of_range_is_refused(text, accepted):
    with pytest.raises(InputError, match="accepted after") as refused:
        entries(text)
    assert accepted in str(refused.value) and repr(text) in str(refused.value)
