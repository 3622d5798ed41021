"""What a rank computes, sends and holds: limits of the arithmetic (FLOPs against torch's own counter: test_cost)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.cache.kv_select import Compression, Sink
from flowcache.cache.policy import Policy
from flowcache.planner.communication import sent_bytes
from flowcache.planner.hardware import Link
from flowcache.planner.rank_work import (
    RankWork,
    flops,
    kv_bytes,
    query_bytes,
    rank_work,
    residual_bytes,
    shape_of,
    shared_flops,
    whole_flops,
)
from tests.unit.planner.published import DONE, MODELS, POLICIES, price


@pytest.mark.parametrize("name", MODELS)
def test_one_rank_sends_nothing(name):
    assert rank_work(MODELS[name], DONE[name], 1) == RankWork(flops(MODELS[name], DONE[name]), 0, 0)


@given(st.sampled_from(list(MODELS)), st.integers(2, 16))
def test_each_rank_holds_its_share_within_two_percent(name, ranks):
    """Also where ranks divide neither tokens nor heads."""
    config, policy, done = MODELS[name], POLICIES[name], DONE[name]
    assert kv_bytes(config, done, ranks) * ranks == pytest.approx(kv_bytes(config, done, 1), rel=0.02)
    kept = residual_bytes(config, policy, done, ranks), residual_bytes(config, policy, done, 1)
    if name != "4.5B":  # MAGI-1 keeps latents beside the shared signals, whole on each rank
        assert kept[0] * ranks == pytest.approx(kept[1], rel=0.02) and kept[1] > 0
    else:
        whole = done.chunks_in_flight * 4 * done.tokens * 4 * 16
        assert (kept[0] - whole) * ranks == pytest.approx(kept[1] - whole, rel=0.02)
        assert whole < 0.03 * kept[1]


def test_what_a_window_sends_is_what_its_forwards_send():
    """SkyReels-V2 without prefix and refresh projects after each forward."""
    config, done = MODELS["1.3B"], DONE["1.3B"]
    shape = shape_of(config, done.tokens, 2)
    assert done.outputs == done.forwards == 2 * done.steps
    for ranks in (2, 3, 4, 8):
        most = max(sent_bytes(shape, ranks, rank) for rank in range(ranks))
        assert rank_work(config, done, ranks).sent == done.forwards * most
        assert price("1.3B", ranks).forward_bytes == most
    layers = rank_work(config, done, 8).collectives / done.forwards
    assert layers == 4 * 30 + 1  # 4 head groups and 2 parts of the history: four times a layer, and before the end
    assert rank_work(config, done, 4).collectives / done.forwards == 2 * 30 + 1


def test_the_busiest_rank_counts():
    """4 ranks have 2, 3, 2 and 3 of 10 tokens."""
    config = MODELS["1.3B"]
    uneven = replace(DONE["1.3B"], tokens=10, seen=1000)
    found = rank_work(config, uneven, 4).flops
    assert found == pytest.approx(shared_flops(config, uneven) * 0.3 + whole_flops(config, uneven))


def test_work_lies_between_other_work():
    assert RankWork(10, 4, 2).toward(RankWork(0, 2, 2), 0.5) == RankWork(5, 3, 2)
    assert RankWork(1e12, 4e9, 10).seconds(1e-12, Link(2e9, 0.1)) == 1 + 2 + 1


def test_queries_are_kept_where_they_choose_later():
    """A chunk's, of all layers, while K/V are compressed as published for MAGI-1."""
    config, done = MODELS["4.5B"], DONE["4.5B"]
    paper = Policy("paper", kv_update="stale", clean=1, compression=Compression(), cut="after")
    whole = 34 * done.tokens * 3072 * 2
    assert query_bytes(config, paper, done, 1) == whole
    assert query_bytes(config, paper, done, 8) == pytest.approx(whole / 8, rel=1e-3)
    for other in (
        replace(paper, cut="before"),
        replace(paper, compression=None),
        replace(paper, compression=Sink(1, 1)),
    ):
        assert query_bytes(config, other, done, 1) == 0


def test_no_reuse_keeps_nothing():
    assert residual_bytes(MODELS["1.3B"], Policy("off"), DONE["1.3B"], 1) == 0
