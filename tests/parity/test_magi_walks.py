"""MAGI-1's walks against the official sampler's and FlowCache's: forwards in order, decisions, latents, kept tokens."""

import copy

import pytest
import torch

from flowcache.families.magi.sampler import model_times
from flowcache.sampling.loop import denoise
from tests.parity.magi_runs import OFF, Run, compression_of, transformer
from tests.parity.recorded import Recorded

TOLERANCE = 1e-3
RUNS = "magi_sampler_tiny"
CACHED = "magi_flowcache_tiny"


@pytest.mark.golden(RUNS, "runs")
def test_forwards(golden, case):
    """Every forward of a chunk, in order: its time, what it sees, with which caption, and whether K/V are kept."""
    run = Run.of(case, golden.tensors(RUNS))
    settings = run.settings
    rows = settings.plan(case["static"]["latent_size"][2], OFF, run.held).rows
    assert len(rows) == len(case["steps"])
    for step, row in zip(case["steps"], rows, strict=True):
        assert [forward_as_list(forward, case) for forward in row.forwards] == official_forwards(step, case)
        assert list(row.steps.values()) == step["denoise_step_of_each_chunk"]
        if settings.pipeline.distilled:
            interval = step["dispatch"][-1]["distill_interval"]
            assert row.distill == (8 / interval if settings.steps == 12 else settings.steps / 2)


def forward_as_list(forward, case):
    text = "caption" if case["empty_prompt"] and forward.text == "null" else forward.text
    alone = forward.kv_branch is None
    return [forward.chunk, forward.timestep, None if alone else forward.first, text]


def official_forwards(step, case):
    """The same of the recorded step; where nothing tells them apart, the null caption counts as the chunk's.

    Over a prefix the official code makes all passes of guidance, of which one leaves K/V and no other leaves anything.
    """
    found, tokens = [], case["static"]["max_sequence_length"] // case["static"]["chunk_num"]
    for dispatch in step["dispatch"]:
        for forward in dispatch["forwards"]:
            alone = forward["update_kv_cache"] is None
            if dispatch.get("extract_prefix_video_feature") and not forward["update_kv_cache"]:
                continue
            times = [t for row in forward["t"] for t in row]
            ranges, rows = forward["kv_range"], dispatch["mask_rows"]
            own = [step["chunk_start"] + i if alone else dispatch["slice_point"] + i for i in range(len(times))]
            if len(times) > len(rows) // 2:  # the copy of the cleanest chunk in flight
                own[-1] = step["chunk_start"]
            for i, (chunk, time) in enumerate(zip(own, times, strict=True)):
                sees_itself = alone or i >= len(rows) // 2
                null = i < len(rows) // 2 and rows[i] == [1, 0]
                text = "dropped" if forward["dropout"][0] else "null" if null else "caption"
                first = None if sees_itself else ranges[i][0] // tokens
                assert sees_itself or ranges[i][1] == (chunk + 1) * tokens
                found.append([chunk, model_times([time])[0], first, text])
    return found


@pytest.mark.golden(RUNS, "runs")
def test_walk(golden, case, record_property):
    walk(golden, case, golden.tensors(RUNS), record_property)


@pytest.mark.golden("magi_sampler_drawn", "runs")
def test_drawn_walk(golden, case, record_property):
    """Settings drawn at random: tokens, scales, windows, ranges. Model and captions are those of the others."""
    walk(golden, case, golden.tensors(RUNS) | golden.tensors("magi_sampler_drawn"), record_property)


def walk(golden, case, data, record_property):
    run = Run.of(case, data)
    model, settings = transformer(golden, case["model"], case["config"], data["null_caption_embedding"]), run.settings
    texts, visits = run.texts(model.null_caption), []
    chunks = list(denoise(model, data[f"{run.name}.x0"][0], texts, settings, OFF, run.prefix, observe=visits.append))
    record_property("error", compare_latents(run, chunks, visits))
    whole = run.held // settings.chunk * settings.chunk
    if run.held > whole:  # given frames stay; the official code shows the model's own last guess instead
        assert torch.equal(chunks[0].latents[:, : run.held - whole], run.prefix[:, whole:])


def compare_latents(run, chunks, visits):
    """After the rows that were recorded, and in the end; given frames apart."""
    chunk, held = run.settings.chunk, run.held
    for visit in (visit for visit in visits if visit.branch == 0 and visit.step > 0):
        after = run.data.get(f"{run.name}.step{visit.row - 1:03}.x_after")
        if after is not None:
            own = slice(max(visit.chunk * chunk, held), (visit.chunk + 1) * chunk)
            ours = visit.latents[:, own.start - visit.chunk * chunk :]
            torch.testing.assert_close(ours, after[0][:, own], atol=TOLERANCE, rtol=0)
    latents = torch.cat([each.latents for each in chunks], dim=1)
    final = run.data[f"{run.name}.final.x"][0][:, held:]
    error = (latents[:, latents.shape[1] - final.shape[1] :] - final).abs().max().item()
    assert error <= TOLERANCE
    return error


@pytest.mark.golden(CACHED, "runs")
def test_flowcache(golden, case, record_property):
    cached_walk(golden, case, golden.tensors(CACHED), record_property)


@pytest.mark.golden("magi_flowcache_drawn", "runs")
def test_drawn_flowcache(golden, case, record_property):
    """Of drawn settings those in which every chunk of the row before a cut is reused."""
    cached_walk(golden, case, golden.tensors(CACHED) | golden.tensors("magi_flowcache_drawn"), record_property)


def cached_walk(golden, case, data, record_property):
    run = Run.of(case, data)
    policy, model, visits = run.policy(Recorded), transformer(golden, "4p5b", case["config"]), []
    x0, texts = data[f"{run.name}.x0"][0], run.texts(model.null_caption)
    chunks = list(denoise(model, x0, texts, run.settings, policy, run.prefix, observe=visits.append))
    compare_decisions(case, [visit for visit in visits if visit.branch == 0 and visit.step >= 0])
    record_property("error", compare_latents(run, chunks, visits))
    if policy.compression:
        calls, kept = range(len(case["compress_calls"])), policy.compression.kept
        names = [f"{run.name}.compress{call}.layer{layer}.kept_idx" for call in calls for layer in range(model.layers)]
        assert len(kept) == len(names) > 0
        assert all(torch.equal(ours, data[name].long()) for ours, name in zip(kept, names, strict=True))
        tokens = case["static"]["max_sequence_length"] // run.chunks
        room = case["flowcache"]["total_cache_chunk_nums"] * tokens * model.kv_heads * model.head_dim * model.layers
        assert chunks[-1].kv_bytes == 2 * room * 4


def compare_decisions(case, visits):
    """Which chunks were computed in which row, and on what grounds."""
    seen = {(visit.row, visit.chunk): visit.decision for visit in visits}
    for row, step in enumerate(case["steps"]):
        computed = [chunk for (r, chunk), decision in seen.items() if r == row and decision.compute]
        assert computed == step["forwarded_chunks"]
        for official in step["decisions"]:
            decision = seen[row, official["chunk"]]
            assert decision.compute != official["reuse"]
            if not official["warmup"]:
                assert decision.distance == pytest.approx(official["rel_l1"], rel=1e-4)  # of small differences
                assert decision.accumulated == pytest.approx(
                    official["accumulated_candidate"], rel=1e-4
                )  # of small differences


@pytest.mark.golden(CACHED, "functions", "cases")
def test_kept_tokens(golden, case):
    facts, data = golden.facts(CACHED)["functions"], golden.tensors(CACHED)
    frame = facts["latent_size_h"] * facts["latent_size_w"]
    told = {key: value for key, value in case.items() if key not in ("case", "budget", "clean_chunk_tokens")}
    compression = compression_of(told).grouped(frame, facts["tokens_per_chunk"])
    clean = data["fn.key"][: case["clean_chunk_tokens"]]
    expected = data[f"fn.case{case['case']}.kept_idx"]
    assert torch.equal(compression.select(data["fn.query"], clean, case["budget"]), expected.long())


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ((), {"tea": {"threshold": 0.1}}),
        (("env",), {"PAD_SMOKE": "1"}),
        (("config", "runtime_config"), {"kv_sink": 2}),
        (("config", "engine_config"), {"tile": 3}),
        (("flowcache",), {"polynomial": [1.0]}),
        (("compression",), {"kernel": 3}),
    ],
)
def test_what_nobody_knows_is_an_error(golden, place, said):
    """A setting of a later golden run must not be passed over."""
    runs = (golden.facts(CACHED) or {"runs": {}})["runs"].values()
    case = next((each for each in runs if each["compression"]), None)
    if case is None:
        pytest.skip("the folder has no such run")
    case = copy.deepcopy(case) | {"name": "one", "env": {}}
    run = Run.of(case, {})
    assert run.policy() and run.settings
    spot = case
    for key in place:
        spot = spot[key]
    spot |= said
    with pytest.raises(ValueError, match=f"says {next(iter(said))}, which the parity tests do not know"):
        Run.of(case, {}).policy()
