"""Which K/V can be chosen on which model: what saves no memory is refused with a sentence."""

from dataclasses import replace

import pytest

from flowcache.bench.kept import keeping, keeping_all
from flowcache.bench.names import KV, Entry
from flowcache.bench.recipe import lengthened
from flowcache.bench.recipes import chosen
from flowcache.cache.kv_select import Compression, Sink
from flowcache.families.registry import find


def long(name: str, chunks: int, **changed):
    """Five chunks are under way at once."""
    return lengthened(replace(find(name), steps=5, ar_step=1, **changed), chunks)


def test_a_long_video_holds_those_kept_and_those_under_way():
    spec = long("tiny-skyreels", 20)
    assert keeping_all(spec).plan(spec).capacity == keeping_all(spec).chunks(spec) == 20
    found = chosen(KV, frozenset(KV), spec, ())
    held = {entry.label: recipe.plan(spec).capacity for entry, recipe in found.recipes}
    assert held == {
        f"kv-{name}": 5 + chunks
        for chunks in (2, 4, 8)
        for name in (f"recent:{chunks}", f"sink:1+{chunks - 1}", f"compressed:{chunks}")
    }


def test_every_step_is_computed_by_the_official_solver():
    spec = long("tiny-skyreels", 20)
    made = {name: keeping(Entry(*name.split(":")), spec) for name in ("kv-recent:2", "kv-sink:2+3", "kv-compressed:4")}
    policies = [recipe.policy for recipe in made.values()]
    assert [policy.clean for policy in policies] == [2, 5, 4]
    assert [policy.compression for policy in policies] == [None, Sink(2, 3), Compression()]
    every = [*policies, keeping_all(spec).policy]
    assert all(policy.reuse is None and policy.steps is None and policy.kv_update == "refresh" for policy in every)
    assert {recipe.told(spec) for recipe in made.values()} == {"UniPC, official"}
    asked = made["kv-sink:2+3"].request(spec, "a", 0).policy
    assert asked == {"name": "flowcache", "reuse": False, "kv": {"keep": "sink", "first": 2, "chunks": 3}}


def test_where_nothing_is_saved_it_says_why():
    entry = Entry("kv-compressed", "4")
    with pytest.raises(ValueError, match="^kv-compressed:4: holds K/V of 5 .* a video of 5 has no more: .*--chunks"):
        chosen([entry], frozenset([entry]), long("tiny-skyreels", 5), ())
    magi = chosen(KV, frozenset(), lengthened(find("tiny-magi"), 20), ())
    assert not magi.recipes and set(magi.left_out) == set(KV)
    assert all("and tiny-magi never sees more than 5: nothing is saved" in why for why in magi.left_out.values())


def test_a_magi_that_sees_its_whole_history_can_save():
    spec = find("tiny-magi")
    spec = long("tiny-magi", 12, pipeline=replace(spec.pipeline, kv_ranges=(), clean_kv_range=-1))
    found = chosen(KV, frozenset(), spec, ())
    assert keeping_all(spec).plan(spec).capacity == 12
    assert {entry.label for entry, _ in found.recipes} >= {"kv-recent:2", "kv-sink:1+3", "kv-compressed:4"}
