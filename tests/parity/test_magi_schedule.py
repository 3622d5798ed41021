"""MAGI-1's time grids, ranges, scales and lists of forwards: exactly the official ones."""

import pytest

from flowcache.cache.policy import Policy
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings, first_seen, guidance_scales, intervals, time_grid
from tests.parity.magi_runs import known

NAME = "magi_schedule_tables"
RANGES = {
    "name", "unit", "num_steps", "noise2clean_kvrange", "clean_chunk_kvrange", "denoise_step_of_each_chunk",
    "slice_point", "range_num", "kv_range",
}  # fmt: skip


@pytest.mark.golden(NAME, "init_t")
def test_time_grid(case):
    config = known(case["t_schedule_config"], {"tSchedulerFunc", "shift"}, "t_schedule_config")
    curve = config.get("tSchedulerFunc", "sd3")
    curve, shift = ("square", config.get("shift", 3.0)) if curve == "sd3" else (curve, 1.0)
    assert list(time_grid(case["num_steps"], case["shortcut_mode"], curve, shift)) == case["t"]


@pytest.mark.golden(NAME, "init_interval")
def test_intervals(case):
    assert list(intervals(case["num_steps"], case["shortcut_mode"])) == case["interval"]


@pytest.mark.golden(NAME, "generate_sequences")
@pytest.mark.parametrize("per_stage", [1, 3])
def test_chunks_in_flight(case, per_stage):
    chunks, window, ready = case["chunk_num"], case["window_size"], case["chunk_offset"]
    settings = MagiSettings(window * per_stage, per_stage, 2, 24, 7.5, Pipeline(window=window))
    rows = settings.plan(2 * chunks, Policy("off"), 2 * ready).rows
    starts, ends, first_steps, last_steps = case["start_end_tstart_tend"]
    assert len(rows) == per_stage * len(starts)
    for number, row in enumerate(rows):
        stage, within = divmod(number, per_stage)
        assert list(row.steps) == list(range(starts[stage], ends[stage]))
        steps = [per_stage * part + within for part in range(first_steps[stage], last_steps[stage])]
        assert list(row.steps.values()) == steps[::-1]


def pipeline_of(case):
    known(case, RANGES, "ranges")
    assert case["unit"] == "chunks"
    return Pipeline(kv_ranges=tuple(case["noise2clean_kvrange"]), clean_kv_range=case["clean_chunk_kvrange"])


@pytest.mark.golden(NAME, "kvrange")
def test_ranges(case):
    first, steps = case["slice_point"], case["num_steps"]
    for chunk, (step, expected) in enumerate(
        zip(case["denoise_step_of_each_chunk"], case["kv_range"], strict=True), first
    ):
        assert [first_seen(pipeline_of(case), steps, chunk, step), chunk + 1] == expected


@pytest.mark.golden(NAME, "prefix_kvrange")
def test_ranges_of_a_prefix(case):
    got = [[first_seen(pipeline_of(case), 8, chunk, -1), chunk + 1] for chunk in range(case["range_num"])]
    assert got == case["kv_range"]


def test_guidance_scales(golden):
    if golden.facts(NAME) is None:
        pytest.skip("the folder has no schedule tables")
    for time, before, text in golden.facts(NAME)["cfg_scale_t_prev_text"]:
        assert guidance_scales(Pipeline(), time) == (before, text)


def test_a_prefix_without_any_range_sees_eight_chunks():
    """`generate_kvrange_for_prefix_video`, where clean_chunk_kvrange is -1 and noise2clean_kvrange empty."""
    pipeline = Pipeline(kv_ranges=(), clean_kv_range=-1)
    assert [first_seen(pipeline, 8, chunk, -1) for chunk in (0, 7, 9)] == [0, 0, 2]
