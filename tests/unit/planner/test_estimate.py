"""Time and GPU hours: the schedule, and the arithmetic, by figures for the hardware and by an earlier run."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.planner.cost import cost
from flowcache.planner.estimate import Cluster, estimate, makespan, verdict
from flowcache.planner.price import cost_model
from flowcache.planner.throughput import measured
from flowcache.planner.workload import workload
from tests.unit.planner.earlier import LINK, LOAD, earlier_run, expected, request, specs_in


@pytest.fixture
def specs(tmp_path):
    return specs_in(tmp_path)


def estimated(requests, specs, cluster, now=0.0):
    costs = cost_model(specs)
    return estimate(workload(requests, costs), cluster.throughput(costs), cluster, now)


def test_other_lengths_and_sizes_are_estimated_from_it(specs, monkeypatch):
    store = earlier_run(specs, [request("a")])
    monkeypatch.setattr(Cluster, "throughput", lambda self, costs: measured(store, costs, LINK))
    wanted = [request("c", 337), request("d", 97, width=192)]
    found = estimated(wanted, specs, Cluster(8, 4, like="x"))
    assert (found.gangs, found.deadline, found.in_time) == (2, None, None)
    longest = max(expected(specs, one, 0.5, 4) for one in wanted)
    assert found.fastest == found.slowest == pytest.approx(LOAD + longest, rel=0.01)
    assert found.gpu_hours == pytest.approx((8 * found.fastest / 3600,) * 2)
    assert "as much is reused as in that run" in found.rests_on


def test_what_the_earlier_run_does_not_show_widens_the_estimate(specs, monkeypatch):
    store = earlier_run(specs, [request("a")])
    monkeypatch.setattr(Cluster, "throughput", lambda self, costs: measured(store, costs, LINK))
    wanted = request("e", steps=20)
    deadline = LOAD + expected(specs, wanted, 0.5, 1)
    found = estimated([wanted], specs, Cluster(1, like="x", deadline=deadline))
    assert found.fastest == pytest.approx(LOAD + expected(specs, wanted, 1.0, 1))
    assert found.slowest == pytest.approx(LOAD + expected(specs, wanted, 0.0, 1))
    assert found.in_time == "perhaps" and any("differ" in note for note in found.rests_on)


def test_a_figure_for_the_hardware(specs):
    wanted = [request("a"), request("b", 97)]
    found = estimated(wanted, specs, Cluster(1, tflops=2.0, efficiency=0.5))
    whole = cost(workload(wanted, cost_model(specs)))
    assert found.slowest == pytest.approx(whole.most.flops / 1e12) and found.fastest == pytest.approx(
        whole.least.flops / 1e12
    )
    off = estimated([replace(one, policy={"name": "off"}) for one in wanted], specs, Cluster(1, tflops=2.0))
    assert off.fastest == off.slowest
    assert "assumed" in found.rests_on[0] and "no loading" in found.rests_on[1]


def test_verdicts():
    assert [verdict((10, 20), left) for left in (5, 10, 15, 20, 25)] == ["no", "perhaps", "perhaps", "yes", "yes"]
    assert verdict((10, 10), 9.9) == "no"


def test_clusters_that_make_no_sense():
    def fields(cluster):
        return [fault.file for fault in cluster.faults()]

    assert fields(Cluster(2, 4, tflops=1)) == ["--gpus"] and fields(Cluster(4, 4, tflops=1)) == []
    assert fields(Cluster()) == [] == fields(Cluster(gang=4)) and fields(Cluster(gang=4, tflops=1)) == []
    assert fields(Cluster(1)) == ["--like"] and fields(Cluster(like="x", tflops=1)) == ["--like"]


SECONDS = st.integers(1, 50).map(float)  # whole, so that sums are exact


@given(st.lists(st.lists(SECONDS, min_size=1, max_size=6), max_size=12), st.integers(1, 5))
def test_the_makespan_is_that_of_a_real_schedule(chains, gangs):
    found, total = makespan(chains, gangs), sum(map(sum, chains))
    longest = max(map(sum, chains), default=0.0)
    assert max(longest, total / gangs) <= found <= total / gangs + longest  # the bound of list scheduling
    assert makespan(chains, 1) == total
    assert makespan(chains, max(len(chains), 1)) == longest


def test_a_long_video_does_not_wait_for_short_ones():
    assert makespan([[1.0]] * 6 + [[3.0, 3.0]], 2) == 6.0


def test_a_night_is_estimated_in_a_moment():
    assert makespan([[1.0] * 10] * 10_000, 1000) == pytest.approx(100)
