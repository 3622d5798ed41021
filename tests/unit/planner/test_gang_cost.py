"""What gangs cost: the published models' numbers, limits of the arithmetic, sizes and speeds as people write them."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.cache.kv_select import Compression
from flowcache.cache.reuse import Policy, Reuse
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.memory import GIB
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.inputs.segments import plan
from flowcache.planner.communication import sent_bytes
from flowcache.planner.cost import flops, shared_flops, whole_flops, window
from flowcache.planner.gang_cost import RankWork, gang_cost, kv_bytes, load, residual_bytes, shape_of
from flowcache.planner.hardware import LINKS, Link, parse_link, parse_size
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.sampling.dry_run import at_most, dry_run

MODELS = {
    "1.3B": SkyReelsConfig(1536, 8960, 12, 30),
    "14B": SkyReelsConfig(5120, 13824, 40, 40),
    "4.5B": MagiConfig(3072, 12288, 24, 8, 128, 34),
}
POLICIES = {
    "skyreels": Policy("paper", Reuse(0.1, 5, (1.0,)), "stale", clean=2, compression=Compression()),
    "magi": Policy("paper", Reuse(0.01, 5, (1.0,)), "stale", near_clean_guidance=False, repeats="increment"),
}
LINK, PER_FLOP = LINKS["nvlink4"], 1 / (989e12 * 0.4)


def walked(name: str):
    """Spec, config, policy, window and its dry run at the most work, at the model's default size."""
    family = "magi" if name == "4.5B" else "skyreels"
    width, height = (720, 720) if family == "magi" else (960, 544)
    chunk, pipeline = (6, Pipeline(passes=1, distilled=True)) if family == "magi" else (5, None)
    spec = ModelSpec(
        name, family, "path", "digest", chunk=chunk, window=25 if chunk == 5 else 60, overlap=5 if chunk == 5 else 24,
        channels=16, causal=chunk == 5, width=width, height=height, pipeline=pipeline,
    )  # fmt: skip
    frames = 97 if chunk == 5 else 240
    request = RenderRequest("v", (Shot("a", frames),), width, height, 24, 1, 6.0, 48, name, {"name": "off"})
    shape = window(request, plan(request, spec)[0], spec)
    done = dry_run(shape.settings, shape.shape, (1, 2, 2), at_most(POLICIES[family]), shape.given)
    return spec, MODELS[name], POLICIES[family], shape, done


CASES = {name: walked(name) for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_one_rank_exchanges_nothing_and_is_the_measure(name):
    _, config, _, _, done = CASES[name]
    found = gang_cost(*CASES[name], 1, PER_FLOP, LINK)
    assert load(config, done, 1) == RankWork(flops(config, done), 0, 0)
    assert (found.heads, found.history, found.forward_bytes, found.exchange, found.efficiency) == (1, 1, 0, 0, 1)
    assert found.compute * done.steps == pytest.approx(flops(config, done) * PER_FLOP)
    assert (found.width, found.height) == (CASES[name][0].width, CASES[name][0].height)


@given(st.sampled_from(list(MODELS)), st.integers(2, 16))
def test_each_rank_holds_its_share_within_two_percent(name, ranks):
    """Also where ranks divide neither tokens nor heads."""
    _, config, policy, _, done = CASES[name]
    assert kv_bytes(config, done, ranks) * ranks == pytest.approx(kv_bytes(config, done, 1), rel=0.02)
    kept = residual_bytes(config, policy, done, ranks), residual_bytes(config, policy, done, 1)
    if name != "4.5B":  # MAGI-1 keeps latents beside the shared signals, whole on each rank
        assert kept[0] * ranks == pytest.approx(kept[1], rel=0.02) and kept[1] > 0
    else:
        whole = done.chunks_in_flight * 4 * done.tokens * 4 * 16
        assert (kept[0] - whole) * ranks == pytest.approx(kept[1] - whole, rel=0.02)
        assert whole < 0.03 * kept[1]


@given(st.sampled_from(list(MODELS)), st.integers(2, 16), st.sampled_from(list(LINKS.values())))
def test_ranks_gain_less_than_their_number(name, ranks, link):
    found = gang_cost(*CASES[name], ranks, PER_FLOP, link)
    slower = gang_cost(*CASES[name], ranks, PER_FLOP, Link(link.speed / 2, link.latency))
    assert 0 < slower.efficiency < found.efficiency < 1 and found.heads * found.history == ranks
    assert found.exchange == pytest.approx(found.step_bytes / link.speed, rel=0.5, abs=0.1)
    alone = gang_cost(*CASES[name], 1, PER_FLOP, link)
    assert found.efficiency * ranks * (found.compute + found.exchange) == pytest.approx(alone.compute)
    assert found.memory.total < alone.memory.total and found.memory.weights == alone.memory.weights


def test_what_a_window_sends_is_what_its_forwards_send():
    """SkyReels-V2 without prefix and refresh projects after each forward."""
    _, config, _, _, done = CASES["1.3B"]
    shape = shape_of(config, done.tokens, 2)
    assert done.outputs == done.forwards == 2 * done.steps
    for ranks in (2, 3, 4, 8):
        most = max(sent_bytes(shape, ranks, rank) for rank in range(ranks))
        assert load(config, done, ranks).sent == done.forwards * most
        assert gang_cost(*CASES["1.3B"], ranks, PER_FLOP, LINK).forward_bytes == most
    layers = load(config, done, 8).collectives / done.forwards
    assert layers == 4 * 30 + 1  # 4 head groups and 2 parts of the history: four times a layer, and before the end
    assert load(config, done, 4).collectives / done.forwards == 2 * 30 + 1


def documented(name: str, ranks: int) -> str:
    """The row of docs/gangs.md."""
    spec, config, policy, window, done = CASES[name]
    whole = replace(policy, clean=None, compression=None)
    done = dry_run(window.settings, window.shape, (1, 2, 2), at_most(whole), window.given)
    costs = {link: gang_cost(spec, config, whole, window, done, ranks, PER_FLOP, LINKS[link]) for link in LINKS}
    found = costs["nvlink4"]
    sizes = (found.memory.keys_values, found.memory.residuals, found.memory.total)
    cells = [name, str(ranks), f"{found.heads} x {found.history}", *(f"{size / GIB:.2f}" for size in sizes)]
    cells += [f"{found.step_bytes / 1e9:.2f}", f"{found.compute * 1e3:.0f}", f"{found.exchange * 1e3:.1f}"]
    return "| " + " | ".join([*cells, *(f"{cost.efficiency:.2f}" for cost in costs.values())]) + " |"


def test_the_numbers_in_the_docs_are_these():
    written = (Path(__file__).parents[3] / "docs" / "gangs.md").read_text()
    expected = [documented(name, ranks) for name in MODELS for ranks in (1, 2, 4, 8)]
    assert "\n".join(expected) in written, "\n".join(expected)


def test_the_busiest_rank_counts():
    """4 ranks have 2, 3, 2 and 3 of 10 tokens."""
    config = MODELS["1.3B"]
    uneven = replace(CASES["1.3B"][-1], tokens=10, seen=1000)
    found = load(config, uneven, 4).flops
    assert found == pytest.approx(shared_flops(config, uneven) * 0.3 + whole_flops(config, uneven))


def test_loads_lie_between_others():
    assert RankWork(10, 4, 2).toward(RankWork(0, 2, 2), 0.5) == RankWork(5, 3, 2)
    assert RankWork(1e12, 4e9, 10).seconds(1e-12, Link(2e9, 0.1)) == 1 + 2 + 1


def test_sharded_weights_take_less_memory_and_more_of_the_link():
    """Their gathering is hidden as long as computing takes longer."""
    whole, sharded = (gang_cost(*CASES["14B"], 8, PER_FLOP, LINK, sharded=sharded) for sharded in (False, True))
    assert sharded.memory.weights < whole.memory.weights / 6 and sharded.memory.total < 0.6 * whole.memory.total
    assert sharded.step_bytes > 2 * whole.step_bytes and sharded.efficiency == pytest.approx(whole.efficiency)
    slow = gang_cost(*CASES["14B"], 8, PER_FLOP, LINKS["pcie4"], sharded=True)
    gathering = (sharded.step_bytes - whole.step_bytes) / LINKS["pcie4"].speed
    assert slow.compute + slow.exchange > gathering > slow.compute
    assert gang_cost(*CASES["14B"], 1, PER_FLOP, LINK, sharded=True).memory.gathered == 0


def test_no_reuse_keeps_nothing():
    _, config, _, _, done = CASES["1.3B"]
    assert residual_bytes(config, Policy("off"), done, 1) == 0


def test_sizes_and_speeds_as_people_write_them():
    assert parse_size("80GB") == 80e9 and parse_size("79.5 GiB") == 79.5 * 2**30 and parse_size("24gb") == 24e9
    assert parse_link("pcie4") is LINKS["pcie4"] and parse_link("300GB/s").speed == 300e9
    assert parse_link("100Gbit/s").speed == 12.5e9 and str(parse_link("300GB/s")).startswith("300 GB/s each way")


@pytest.mark.parametrize("text", ["", "80", "GB", "0GB", "80 parsecs", "-1GB", "1GB/s", "8Gbit"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="accepted: a size such as 80GB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "nvlink", "300", "300GB", "0GB/s", "3xB/s", "/s"])
def test_no_links(text):
    with pytest.raises(ValueError, match="accepted: nvlink4, .* such as 300GB/s"):
        parse_link(text)
