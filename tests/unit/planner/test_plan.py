"""The plan of a manifest: its parts agree, and nothing is walked twice for them."""

from dataclasses import fields
from unittest import mock

import pytest

from flowcache.planner.estimate import Cluster
from flowcache.planner.plan import plan
from flowcache.sampling.dry_run import dry_run
from tests.unit.planner.earlier import request, specs_in


@pytest.fixture
def specs(tmp_path):
    return specs_in(tmp_path)


def test_its_parts_agree(specs):
    found = plan([request("a"), request("b", 97)], specs, Cluster(gpus=4, gang=2, tflops=1.0), now=0.0)
    two = next(option for option in found.gangs.options if option.ranks == 2)
    assert (found.estimate.fastest, found.estimate.slowest) == (two.fastest, two.slowest)
    assert (found.cost.videos, found.cost.segments) == (2, 3)
    assert [field.name for field in fields(found)] == ["cost", "gangs", "estimate"]


def test_time_is_estimated_only_where_it_is_asked_for(specs):
    found = plan([request()], specs, Cluster(), now=0.0)
    assert found.estimate is None and all(option.slowest is None for option in found.gangs.options)
    late = plan([request()], specs, Cluster(tflops=1.0, deadline=5.0), now=100.0)
    assert (late.estimate.deadline, late.estimate.in_time) == (5.0, "no")


def test_sharding_is_that_of_the_cluster(specs):
    whole, sharded = (plan([request()], specs, Cluster(sharded=sharded), now=0.0) for sharded in (False, True))
    held = [each.gangs.options[1].costs[0].memory.weights for each in (whole, sharded)]
    assert held[1] < held[0] and "weights are sharded" in sharded.gangs.rests_on[-1]
    assert whole.cost == sharded.cost


def test_each_window_is_walked_once_for_all_parts(specs):
    with mock.patch("flowcache.planner.price.dry_run", wraps=dry_run) as walk:
        plan([request("a"), request("b", 97)], specs, Cluster(gpus=4, gang=2, tflops=1.0), now=0.0)
    walked = [call.args[1:] for call in walk.call_args_list]
    assert len(walked) == len(set(walked)) == 10  # two windows, four policies compared, and its own with all reused
