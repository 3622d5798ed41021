"""Which gang size is recommended, and why others are not."""

import json
from dataclasses import replace

import pytest

from flowcache.families.memory import GIB
from flowcache.families.vae_tiling import TILE, USABLE
from flowcache.models.wan_vae import decoding_bytes
from flowcache.planner.advice import WORTH, advise
from flowcache.planner.estimate import Cluster
from flowcache.planner.hardware import Link, Node
from flowcache.planner.price import cost_model
from flowcache.planner.workload import workload
from flowcache.records import ModelSpec, Precision, RenderRequest, Shot

CONFIG = {
    "dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "in_dim": 16, "out_dim": 16, "text_dim": 4096,
    "text_len": 512,
}  # fmt: skip
FAST = Cluster(gpus=64, tflops=989)


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps(CONFIG))
    spec = ModelSpec("1.3B", "skyreels", str(folder), "digest", chunk=5, window=25, overlap=5, channels=16)
    return {"1.3B": spec, "other": replace(spec, name="other")}


def request(number=0, frames=97, **fields):
    given = dict(width=960, height=544, fps=24, seed=1, guidance=6.0, steps=10, model="1.3B", policy={"name": "off"})
    return RenderRequest(f"v{number}", (Shot("a", frames),), **given | fields)


def advice(requests, specs, cluster=FAST, now=0.0):
    costs = cost_model(specs, cluster.sharded)
    return advise(workload(requests, costs), cluster.throughput(costs), cluster, now)


def test_many_videos_take_the_smallest_gang(specs):
    found = advice([request(number) for number in range(1000)], specs)
    assert [option.ranks for option in found.options] == [1, 2, 4, 8] and found.recommended == 1
    spans = [option.slowest for option in found.options]
    assert spans == sorted(spans) and spans[1] < 1.1 * spans[0]  # each rank more is a little less efficient
    assert "the smallest that fits the GPUs" in found.reason and "in time" not in found.reason


def test_few_long_videos_take_large_gangs(specs):
    """Segments of a video follow one another: only more ranks for each make it sooner."""
    rows = [request(number, 97 + 80 * 9) for number in range(3)]
    found = advice(rows, specs)
    spans = {option.ranks: option.slowest for option in found.options}
    assert found.recommended == 8 and spans[8] < spans[1] / 6 and "where 3 of 64 gangs have work" in found.reason
    between = advice(rows, specs, replace(FAST, deadline=100.0 + (spans[1] + spans[8]) / 2), now=100.0)
    assert between.reason.endswith("; in time: yes with 8, no with 1")


def test_one_long_video_among_many_decides(specs):
    found = advice([request(0, 97 + 80 * 59), *map(request, range(1, 100))], specs, Cluster(gpus=8, tflops=989))
    assert found.recommended > 1 and "most gangs wait for the longest chains" in found.reason


def test_a_slow_link_makes_large_gangs_worth_less(specs):
    slow = replace(FAST, node=Node(link=Link(1e8)))
    assert advice([request(number, 177) for number in range(3)], specs, slow).recommended == 1


def test_gangs_are_as_large_as_memory_asks(specs):
    small = Cluster(node=Node(memory=1e9))
    needs = [option.costs[0].memory.total for option in advice([request()], specs, small).options]
    assert needs == sorted(needs, reverse=True)
    for place, need in enumerate(needs[:-1]):
        tight = replace(FAST, gpus=None, tflops=None, node=Node(memory=(need - 1) / USABLE))
        found = advice([request()], specs, tight)
        assert found.recommended == found.options[place + 1].ranks
        assert [option.fits for option in found.options] == [number > place for number in range(4)]
    few = advice([request()], specs, replace(FAST, gpus=2, node=Node(memory=(needs[1] - 1) / USABLE)))
    assert few.recommended is None and "less than 4 ranks" in few.reason and "there are 2 (--gpus)" in few.reason
    nothing = advice([request()], specs, small)
    assert nothing.recommended is None and f"{needs[-1] / GIB:.1f} GiB" in nothing.reason


def test_frames_are_decoded_in_tiles_where_they_would_not_fit_one_rank(specs):
    """As `auto` decides when rendering, for gangs of every size."""
    ample, tight = (advice([request()], specs, Cluster(node=Node(memory=size))) for size in (80e9, 24e9))
    for whole, tiled in zip(ample.options, tight.options, strict=True):
        memory = whole.costs[0].memory
        assert memory.codec == decoding_bytes(960, 544, None, 4) > 1.3 * decoding_bytes(960, 544, TILE, 4)
        assert tiled.costs[0].memory == replace(memory, codec=decoding_bytes(960, 544, TILE, 4))


def test_the_plan_counts_numbers_and_tiles_as_the_run_is_told(specs):
    """What a job says of them changes what a rank holds."""

    def held(**how):
        tiling = how.pop("tiling", "auto")
        cluster = Cluster(precision=Precision(**how), tiling=tiling)
        costs = cost_model(specs, False, cluster.precision)
        found = advise(workload([request()], costs), cluster.throughput(costs), cluster, 0.0)
        return found.options[0].costs[0].memory, found.rests_on

    usual, (full, said) = held()[0], held(dtype="fp32")
    assert full.keys_values == 2 * usual.keys_values and 1.9 < full.weights / usual.weights <= 2
    assert full.activations == 2 * usual.activations and full.codec == usual.codec and "float32" in said[-2]
    assert held(vae_dtype="bf16")[0].codec == usual.codec // 2
    tiled, said = held(tiling="on")
    assert tiled.codec == decoding_bytes(960, 544, TILE, 4) and "decoded in tiles" in said[-1]
    assert held(tiling="off")[0] == usual


def test_sharded_weights_let_smaller_gangs_fit(specs):
    whole = advice([request()], specs, Cluster(node=Node(memory=1e9))).options[2].costs[0].memory
    tight = Cluster(node=Node(memory=(whole.total - 1) / USABLE))
    assert advice([request()], specs, tight).recommended == 8
    found = advice([request()], specs, replace(tight, sharded=True))
    assert found.recommended == 4 and "weights are sharded" in found.rests_on[-1]
    assert found.options[2].costs[0].memory.weights < whole.weights / 3


def test_the_model_and_window_that_need_most_are_shown(specs):
    """Of each model one, with the policy that keeps most."""
    rows = [
        request(0, width=320, height=192),
        request(1, policy={"name": "dense"}),
        request(2),
        request(3, model="other"),
    ]
    one, other = advice(rows, specs).options[0].costs
    assert (one.model, one.width, other.model) == ("1.3B", 960, "other")
    assert one.memory.keys_values == 2 * 30 * (5 * 10_200) * 1536 * 2  # not dense, which keeps none


def test_sizes_that_cannot_work_say_why_and_what_does(specs):
    found = advice([request(width=16, height=16)], specs, Cluster(gang=5, node=Node(gpus=4)))
    problems = {option.ranks: option.problem for option in found.options if option.problem}
    assert list(problems) == [5, 8] and found.recommended == 1
    assert "that has 4 GPUs (--node-gpus); accepted: 1 to 4" in problems[5]
    assert problems[8] == "got 8; accepted for 1.3B at 16x16: 1 to 5"
    assert all(option.costs == () and option.slowest is None for option in found.options if option.problem)


def test_larger_gangs_than_the_cluster_has_ranks_get_no_time(specs):
    found = advice([request()], specs, Cluster(gpus=2, tflops=989))
    assert [option.slowest is None for option in found.options] == [False, False, True, True]
    assert found.recommended == 2


def test_without_a_speed_memory_decides_and_says_so(specs):
    found = advice([request()], specs, Cluster(gang=3))
    assert [option.ranks for option in found.options] == [1, 2, 3, 4, 8] and found.recommended == 1
    assert all(option.slowest is None for option in found.options)
    assert any("989 TFLOP/s" in note for note in found.rests_on) and any("nvlink4" in note for note in found.rests_on)


def test_gains_below_five_percent_are_left(specs):
    """Two gangs of one for two videos: as fast as can be."""
    found = advice([request(0), request(1)], specs, Cluster(gpus=2, tflops=989))
    one, two = found.options[:2]
    assert found.recommended == 1 and WORTH < two.slowest / one.slowest
