"""What gangs cost: the published models' numbers, and limits of the arithmetic."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.cache.policy import Policy
from flowcache.families.memory import GIB
from flowcache.planner.gang_cost import GangCost, gang_cost
from flowcache.planner.hardware import LINKS, Link
from flowcache.planner.rank_work import flops
from flowcache.planner.throughput import Throughput
from tests.unit.planner.published import DONE, MODELS, POLICIES, SPECS, price

LINK, PER_FLOP = LINKS["nvlink4"], 1 / (989e12 * 0.4)


def cost_of(name: str, ranks: int, link: Link = LINK, policy: Policy | None = None, sharded: bool = False) -> GangCost:
    shared, alone = (price(name, size, policy, sharded) for size in (ranks, 1))
    return gang_cost(shared, alone, Throughput(PER_FLOP, link))


@pytest.mark.parametrize("name", MODELS)
def test_one_rank_exchanges_nothing_and_is_the_measure(name):
    config, done, found = MODELS[name], DONE[name], cost_of(name, 1)
    assert (found.heads, found.history, found.forward_bytes, found.exchange, found.efficiency) == (1, 1, 0, 0, 1)
    assert found.compute * done.steps == pytest.approx(flops(config, done) * PER_FLOP)
    assert (found.width, found.height) == (SPECS[name].width, SPECS[name].height)


@given(st.sampled_from(list(MODELS)), st.integers(2, 16), st.sampled_from(list(LINKS.values())))
def test_ranks_gain_less_than_their_number(name, ranks, link):
    found = cost_of(name, ranks, link)
    slower = cost_of(name, ranks, Link(link.speed / 2, link.latency))
    assert 0 < slower.efficiency < found.efficiency < 1 and found.heads * found.history == ranks
    assert found.exchange == pytest.approx(found.step_bytes / link.speed, rel=0.5, abs=0.1)
    alone = cost_of(name, 1, link)
    assert found.efficiency * ranks * (found.compute + found.exchange) == pytest.approx(alone.compute)
    assert found.memory.total < alone.memory.total and found.memory.weights == alone.memory.weights


def documented(name: str, ranks: int) -> str:
    """The row of docs/gangs.md."""
    whole = replace(POLICIES[name], clean=None, compression=None)
    costs = {link: cost_of(name, ranks, LINKS[link], whole) for link in LINKS}
    found = costs["nvlink4"]
    cells = [name, str(ranks), *(f"{size / GIB:.2f}" for size in (found.memory.keys_values, found.memory.residuals))]
    cells += [f"{found.step_bytes / 1e9:.2f}", f"{found.compute * 1e3:.0f}", f"{found.exchange * 1e3:.1f}"]
    return "| " + " | ".join([*cells, *(f"{cost.efficiency:.2f}" for cost in costs.values())]) + " |"


def test_the_numbers_in_the_docs_are_these():
    written = (Path(__file__).parents[3] / "docs" / "gangs.md").read_text()
    expected = [documented(name, ranks) for name in MODELS for ranks in (1, 2, 4, 8)]
    assert "\n".join(expected) in written, "\n".join(expected)


@pytest.mark.parametrize(
    ("name", "row"), [("1.3B", "SkyReels-V2 1.3B 540P"), ("14B", "14B 540P"), ("4.5B", "MAGI-1 4.5B 720x720")]
)
def test_all_memory_is_that_of_the_page_on_models(name, row):
    written = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
    whole = replace(POLICIES[name], clean=None, compression=None)

    def total(ranks: int, sharded: bool) -> str:
        return f"{cost_of(name, ranks, policy=whole, sharded=sharded).memory.total / GIB:.1f}"

    cells = [total(1, False), *(f"{total(ranks, False)} ({total(ranks, True)})" for ranks in (2, 4, 8))]
    assert f"| {row} | {' | '.join(cells)} |" in written, cells


def test_sharded_weights_take_less_memory_and_more_of_the_link():
    """Their gathering is hidden as long as computing takes longer."""
    whole, sharded = (cost_of("14B", 8, sharded=sharded) for sharded in (False, True))
    assert sharded.memory.weights < whole.memory.weights / 6 and sharded.memory.total < 0.6 * whole.memory.total
    assert sharded.step_bytes > 2 * whole.step_bytes and sharded.efficiency == pytest.approx(whole.efficiency)
    slow = cost_of("14B", 8, LINKS["pcie4"], sharded=True)
    gathering = (sharded.step_bytes - whole.step_bytes) / LINKS["pcie4"].speed
    assert slow.compute + slow.exchange > gathering > slow.compute
    assert cost_of("14B", 1, sharded=True).memory.gathered == 0
