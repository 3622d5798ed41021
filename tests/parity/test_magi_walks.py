"""MAGI-1's walks against the official sampler's and FlowCache's: forwards in order, decisions, latents, kept tokens."""

from dataclasses import dataclass, field

import pytest
import torch

from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatIncrement
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings, model_times
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.sampling.loop import Texts, denoise

TOLERANCE = 1e-3
OFF = Policy("off", kv_update="refresh")


def transformer(golden, size, sizes, null=None):
    """The tiny model of "4p5b" or "24b"."""
    config = MagiConfig(
        dim=sizes["hidden_size"], ffn_dim=sizes["ffn_hidden_size"], heads=sizes["num_attention_heads"],
        kv_heads=sizes["num_query_groups"], head_dim=sizes["kv_channels"], layers=sizes["num_layers"],
        text_dim=sizes["caption_channels"], condition_dim=int(sizes["hidden_size"] * sizes["cond_hidden_ratio"]),
        gated=sizes["gated_linear_unit"], half_channel=sizes["half_channel_vae"], rescale=sizes["x_rescale_factor"],
        text_len=sizes["caption_max_length"] if null is None else len(null),
    )  # fmt: skip
    weights = golden.tensors(f"magi_dit_{size}_tiny.weights")
    if null is not None:
        weights["y_embedder.null_caption_embedding"] = null
    model = MagiTransformer(config)
    model.load_state_dict(weights)
    return model.eval()


def settings_of(config):
    runtime, engine = config["runtime_config"], config["engine_config"]
    pipeline = Pipeline(
        window=runtime["window_size"], passes=runtime["cfg_number"], guidance_times=tuple(runtime["cfg_t_range"]),
        previous_scales=tuple(runtime["prev_chunk_scales"]), text_scales=tuple(runtime["text_scales"]),
        kv_ranges=tuple(runtime["noise2clean_kvrange"]), clean_kv_range=runtime["clean_chunk_kvrange"],
        clean_time=runtime["clean_t"], near_clean=engine["distill_nearly_clean_chunk_threshold"],
        shortcut=engine["shortcut_mode"], distilled=engine["distill"],
    )  # fmt: skip
    steps, strongest = runtime["num_steps"], max(runtime["text_scales"])
    return MagiSettings(steps, steps // pipeline.window, runtime["chunk_width"], runtime["fps"], strongest, pipeline)


def captions(data, case, chunks):
    """One for each chunk, with the special tokens that the run had."""
    words = data["caption_embs"][0][:, data["caption_mask"][0].bool()]
    if case["empty_prompt"]:
        return Texts([None] * chunks)
    if not case["env"]:
        return Texts(words)
    special = data["special.other_tokens"].half().float()
    told = [special[[7 + min(chunks - 1 - chunk, 7), 1]] for chunk in range(chunks)]
    return Texts([torch.cat([tokens[None], words], dim=1) for tokens in told])


RUNS = "magi_sampler_tiny"
CACHED = "magi_flowcache_tiny"


@pytest.mark.golden(RUNS, "runs")
def test_forwards(golden, case):
    """Every forward of a chunk, in order: its time, what it sees, with which caption, and whether K/V are kept."""
    frames, settings = case["static"]["latent_size"][2], settings_of(case["config"])
    prefix = golden.tensors(RUNS)[case["prefix"]].shape[2] if case["prefix"] else 0
    rows = settings.plan(frames, OFF, prefix).rows
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
    """The same of the recorded step; where nothing tells them apart, the null caption counts as the chunk's."""
    found, tokens = [], case["static"]["max_sequence_length"] // case["static"]["chunk_num"]
    for dispatch in step["dispatch"]:
        for forward in dispatch["forwards"]:
            alone = forward["update_kv_cache"] is None
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
    data, run, settings = golden.tensors(RUNS), case["name"], settings_of(case["config"])
    model = transformer(golden, case["model"], case["config"]["model_config"], data["null_caption_embedding"])
    x0, prefix = data[f"{run}.x0"][0], data[case["prefix"]][0] if case["prefix"] else None
    texts, visits = captions(data, case, x0.shape[1] // settings.chunk), []
    chunks = list(denoise(model, x0, texts, settings, OFF, prefix, observe=visits.append))
    held = 0 if prefix is None else prefix.shape[1]
    record_property("error", compare_latents(data, run, settings.chunk, chunks, visits, held))
    whole = held // settings.chunk * settings.chunk
    if held > whole:  # given frames stay; the official code shows the model's own last guess instead
        assert torch.equal(chunks[0].latents[:, : held - whole], prefix[:, whole:])


def compare_latents(data, run, chunk, chunks, visits, held=0):
    """After the rows that were recorded, and in the end; given frames apart."""
    for visit in (visit for visit in visits if visit.branch == 0 and visit.step > 0):
        after = data.get(f"{run}.step{visit.row - 1:03}.x_after")
        if after is not None:
            own = slice(max(visit.chunk * chunk, held), (visit.chunk + 1) * chunk)
            ours = visit.latents[:, own.start - visit.chunk * chunk :]
            torch.testing.assert_close(ours, after[0][:, own], atol=TOLERANCE, rtol=0)
    latents = torch.cat([each.latents for each in chunks], dim=1)
    final = data[f"{run}.final.x"][0][:, held:]
    error = (latents[:, latents.shape[1] - final.shape[1] :] - final).abs().max().item()
    assert error <= TOLERANCE
    return error


@dataclass(frozen=True)
class Recorded(Compression):
    """Compression that also notes what it kept."""

    kept: list = field(default_factory=list)

    def select(self, queries, keys, budget):
        self.kept.append(super().select(queries, keys, budget))
        return self.kept[-1]


def policy_of(case):
    """The policy that a run's settings stand for."""
    given, told = case["flowcache"], case["compression"]
    reuse = Reuse(given["rel_l1_thresh"], given["warmup_steps"], (1.0, 0.0), last_step=False)
    clean = compression = None
    if told:
        clean = given["total_cache_chunk_nums"] - case["config"]["runtime_config"]["window_size"]
        compression = compression_of(told, Recorded)
    return Policy(
        "paper", reuse, "stale", clean=clean, compression=compression, cache=CacheOf(RepeatIncrement),
        near_clean_guidance=not given["discard_nearly_clean_chunk"], cut="after",
    )  # fmt: skip


def compression_of(told, kind=Compression):
    weighting = told["score_weighting_method"]
    return kind(
        told["mix_lambda"], by=told["compress_strategy"], queries=told["query_granularity"],
        weighting="even" if weighting == "no_weight" else weighting, power=told["power"],
    )  # fmt: skip


@pytest.mark.golden(CACHED, "runs")
def test_flowcache(golden, case, record_property):
    data, run, settings, policy = golden.tensors(CACHED), case["name"], settings_of(case["config"]), policy_of(case)
    model = transformer(golden, "4p5b", case["config"]["model_config"])
    texts, visits = Texts(data["caption_embs"][0][:, data["caption_mask"][0].bool()]), []
    chunks = list(denoise(model, data[f"{run}.x0"][0], texts, settings, policy, observe=visits.append))
    compare_decisions(case, [visit for visit in visits if visit.branch == 0])
    record_property("error", compare_latents(data, run, settings.chunk, chunks, visits))
    if policy.compression:
        expected = [value for key, value in sorted(data.items()) if key.startswith(run) and key.endswith("kept_idx")]
        kept = policy.compression.kept
        assert len(kept) == len(expected) == 3 * len(case["compress_calls"])
        assert all(torch.equal(ours, official.long()) for ours, official in zip(kept, expected, strict=True))
        room = case["flowcache"]["total_cache_chunk_nums"] * 12 * model.kv_heads * model.head_dim * model.layers
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
    compression = compression_of(case).grouped(frame, facts["tokens_per_chunk"])
    clean = data["fn.key"][: case["clean_chunk_tokens"]]
    expected = data[f"fn.case{case['case']}.kept_idx"]
    assert torch.equal(compression.select(data["fn.query"], clean, case["budget"]), expected.long())
