"""The segments of a manifest: those that are alike are one case, those that follow one another a chain."""

from dataclasses import replace

import pytest

from flowcache.planner.price import cost_model
from flowcache.planner.workload import workload
from tests.unit.planner.earlier import request, specs_in


@pytest.fixture
def costs(tmp_path):
    return cost_model(specs_in(tmp_path))


def test_segments_that_are_alike_are_one_case(costs):
    work = workload([request("a", 257), replace(request("b", 257), seed=2), request("c", 97)], costs)
    assert work.chains == [[0, 1, 1], [0, 1, 1], [0]]
    first, rest = work.cases
    assert (first.window.given, rest.window.given) == (0, 5) and (first.chunks, rest.chunks) == (5, 4)
    assert (first.pixels, rest.pixels) == (97 * 96 * 64, 80 * 96 * 64)
    assert work.price(rest, 2) is costs.price(rest.window, rest.policy, 2)


def test_what_changes_price_or_time_is_another_case(costs):
    rows = [request("a", 97), *(request("b", 97, **other) for other in ({"steps": 11}, {"width": 112}, {"policy": {}}))]
    assert workload(rows, costs).chains == [[0], [1], [2], [3]]
