"""How fast ranks work: an earlier run of known speed is measured, and what is known of reuse narrows the answer."""

from dataclasses import replace

import pytest

from flowcache.errors import InputError
from flowcache.planner.hardware import Link
from flowcache.planner.price import cost_model
from flowcache.planner.throughput import Throughput, kind, measured
from flowcache.planner.workload import workload
from tests.unit.planner.earlier import LINK, LOAD, SLOWNESS, SPEED, earlier_run, request, specs_in


@pytest.fixture
def specs(tmp_path):
    return specs_in(tmp_path)


def test_the_speed_of_an_earlier_run_is_found_again(specs):
    store = earlier_run(specs, [request("a"), request("b", 97)])
    throughput = measured(store, cost_model(specs), LINK)
    assert (
        throughput.per_flop == pytest.approx(SPEED)
        and throughput.per_pixel == pytest.approx(SLOWNESS)
        and throughput.load == LOAD
    )
    assert list(throughput.reused.values()) == [pytest.approx(0.5, abs=0.01)]
    assert "2x" not in throughput.rests_on[0] and "m at 96x64, on gangs of 2, hosts host" in throughput.rests_on[0]


def test_an_earlier_run_of_other_models_does_not_help(specs):
    store = earlier_run(specs, [request("a")])
    with pytest.raises(InputError, match=r"holds none \(m\); accepted: an output with finished segments of other"):
        measured(store, cost_model({"other": specs["m"]}), LINK)


def test_exchanges_that_took_longer_than_the_whole_are_refused(specs):
    """The earlier run can't have gone over such a link."""
    store = earlier_run(specs, [request("a")])
    with pytest.raises(InputError, match=r"--link: 1e-06 GB/s .* is too slow: .* accepted: a faster one"):
        measured(store, cost_model(specs), Link(1e3))


def test_a_segment_takes_from_all_reused_to_nothing_unless_it_is_known(specs):
    wanted, pixels = request(), 177 * 96 * 64
    (case, *_) = workload([wanted], cost_model(specs)).cases
    price = cost_model(specs).price(case.window, case.policy, 2)
    speed = Throughput(SPEED, LINK, SLOWNESS)
    fastest, slowest = speed.seconds(price, kind(wanted), pixels)
    assert slowest == price.rank_most.seconds(SPEED, LINK) + pixels * SLOWNESS
    assert fastest == pytest.approx(price.rank_least.seconds(SPEED, LINK) + pixels * SLOWNESS) and fastest < slowest
    known = replace(speed, reused={kind(wanted): 0.25}).seconds(price, kind(wanted), pixels)
    assert known == (price.rank(0.25).seconds(SPEED, LINK) + pixels * SLOWNESS,) * 2
    assert fastest < known[0] < slowest
