"""Time and GPU hours: the schedule, the arithmetic, and a simulate earlier run of known speed."""

import json
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.errors import InputError
from flowcache.families.settings import resolve_policy
from flowcache.inputs.segments import plan
from flowcache.planner.cost import cost, walker, window
from flowcache.planner.estimate import Cluster, estimate, makespan, verdict
from flowcache.planner.gang_cost import load
from flowcache.planner.hardware import Link
from flowcache.planner.throughput import measured
from flowcache.planner.workload import workload
from flowcache.records import ChunkRecord, ModelSpec, RenderRequest, Shot
from flowcache.sampling.dry_run import at_least, at_most
from flowcache.storage.commits import commit_segment
from flowcache.storage.documents import SegmentMarker
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run, new_run

CONFIG = {
    "dim": 48, "ffn_dim": 96, "num_heads": 4, "num_layers": 2, "in_dim": 16, "out_dim": 16, "text_dim": 16,
    "text_len": 8,
}  # fmt: skip
PRESETS = {"slow": {"threshold": 0.1, "ret_steps": 2, "coefficients": [1.0]}}
PAPER = {"name": "paper", "preset": "slow"}


@pytest.fixture
def specs(tmp_path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(CONFIG))
    return {
        "m": ModelSpec("m", "skyreels", str(tmp_path), "d", chunk=5, window=25, overlap=5, channels=16, reuse=PRESETS)
    }


def request(name="v", frames=177, **fields):
    values = dict(width=96, height=64, fps=24, seed=1, guidance=6.0, steps=10, policy=PAPER) | fields
    return RenderRequest(name, (Shot("a", frames),), model="m", **values)


def work(wanted, segment, specs, share, ranks):
    """Load of a segment on each rank where `share` of what reuse may save was saved, and how many forwards may be."""
    policy, shape, walked = (
        resolve_policy(wanted.policy, specs["m"]),
        window(wanted, segment, specs["m"]),
        walker(specs),
    )
    (config, most), (_, least) = (walked(shape, bound(policy)) for bound in (at_most, at_least))
    return load(config, most, ranks).toward(load(config, least, ranks), share), most.forwards - least.forwards


SPEED, SLOWNESS, LOAD = 1e-9, 1e-7, 7.0  # seconds a FLOP, seconds a pixel, seconds
LINK = Link(1e6, 1e-4)  # so slow that it counts


def earlier_run(specs, requests, share=0.5, ranks=2) -> Store:
    """Rendered at exactly that speed on gangs of `ranks`."""
    store = Store(f"memory://{uuid.uuid4().hex}")
    segments = [segment for wanted in requests for segment in plan(wanted, specs["m"])]
    run = begin_run(store, new_run(requests, {"m": "d"}, segments, "0"))
    by_id = {wanted.id: wanted for wanted in requests}
    for number, segment in enumerate(segments):
        wanted = by_id[segment.video_id]
        done, reusable = work(wanted, segment, specs, share, ranks)
        denoise, pixels = done.seconds(SPEED, LINK), segment.frames * wanted.width * wanted.height
        chunk = ChunkRecord(
            segment.first_chunk, "k", "s", 1, segment.frames, 0, 1, int(reusable * share), denoise, 0, 0, 0
        )
        load = LOAD if number == 0 else 0.0
        marker = SegmentMarker(
            segment.video_id, segment.index, "a", run.run_id, run.spec_hash, 1, None, "i", "s", None, None, 0, (chunk,),
            segment.frames, 0, 24, wanted.policy, "host", "gang", ranks, 100.0,
            100.0 + load + denoise + pixels * SLOWNESS, {"load": load},
        )  # fmt: skip
        commit_segment(store, marker)
    return store


def expected(specs, wanted, share, gang):
    pixels = wanted.frames * wanted.width * wanted.height
    done = (work(wanted, segment, specs, share, gang)[0] for segment in plan(wanted, specs["m"]))
    return sum(one.seconds(SPEED, LINK) for one in done) + pixels * SLOWNESS


def estimated(requests, specs, cluster, now=0.0):
    return estimate(workload(requests, specs), cluster.throughput(specs), cluster, now)


def test_the_speed_of_an_earlier_run_is_found_again(specs):
    store = earlier_run(specs, [request("a"), request("b", 97)])
    throughput = measured(store, specs, LINK)
    assert (
        throughput.per_flop == pytest.approx(SPEED)
        and throughput.per_pixel == pytest.approx(SLOWNESS)
        and throughput.load == LOAD
    )
    assert list(throughput.reused.values()) == [pytest.approx(0.5, abs=0.01)]
    assert "2x" not in throughput.rests_on[0] and "m at 96x64, on gangs of 2, hosts host" in throughput.rests_on[0]


def test_other_lengths_and_sizes_are_estimated_from_it(specs, monkeypatch):
    store = earlier_run(specs, [request("a")])
    monkeypatch.setattr(Cluster, "throughput", lambda self, specs: measured(store, specs, LINK))
    wanted = [request("c", 337), request("d", 97, width=192)]
    found = estimated(wanted, specs, Cluster(8, 4, like="x"))
    assert (found.gangs, found.deadline, found.in_time) == (2, None, None)
    longest = max(expected(specs, one, 0.5, 4) for one in wanted)
    assert found.fastest == found.slowest == pytest.approx(LOAD + longest, rel=0.01)
    assert found.gpu_hours == pytest.approx((8 * found.fastest / 3600,) * 2)
    assert "as much is reused as in that run" in found.rests_on


def test_what_the_earlier_run_does_not_show_widens_the_estimate(specs, monkeypatch):
    store = earlier_run(specs, [request("a")])
    monkeypatch.setattr(Cluster, "throughput", lambda self, specs: measured(store, specs, LINK))
    wanted = request("e", steps=20)
    deadline = LOAD + expected(specs, wanted, 0.5, 1)
    found = estimated([wanted], specs, Cluster(1, like="x", deadline=deadline))
    assert found.fastest == pytest.approx(LOAD + expected(specs, wanted, 1.0, 1))
    assert found.slowest == pytest.approx(LOAD + expected(specs, wanted, 0.0, 1))
    assert found.in_time == "perhaps" and any("differ" in note for note in found.rests_on)


def test_a_figure_for_the_hardware(specs):
    wanted = [request("a"), request("b", 97)]
    found = estimated(wanted, specs, Cluster(1, tflops=2.0, efficiency=0.5))
    whole = cost(wanted, specs)
    assert found.slowest == pytest.approx(whole.most.flops / 1e12) and found.fastest == pytest.approx(
        whole.least.flops / 1e12
    )
    off = estimated([replace(one, policy={"name": "off"}) for one in wanted], specs, Cluster(1, tflops=2.0))
    assert off.fastest == off.slowest
    assert "assumed" in found.rests_on[0] and "no loading" in found.rests_on[1]


def test_an_earlier_run_of_other_models_does_not_help(specs):
    store = earlier_run(specs, [request("a")])
    with pytest.raises(InputError, match=r"holds none \(m\); accepted: an output with finished segments of other"):
        measured(store, {"other": specs["m"]}, LINK)


def test_exchanges_that_took_longer_than_the_whole_are_refused(specs):
    """The earlier run can't have gone over such a link."""
    store = earlier_run(specs, [request("a")])
    with pytest.raises(InputError, match=r"--link: 1e-06 GB/s .* is too slow: .* accepted: a faster one"):
        measured(store, specs, Link(1e3))


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
