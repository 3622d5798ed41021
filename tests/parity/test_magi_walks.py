"""MAGI-1's walks against the official sampler's: every forward in order, latents, and what was held."""

import pytest
import torch

from flowcache.cache.reuse import Policy
from flowcache.models.magi.config import MagiConfig
from flowcache.models.magi.transformer import MagiTransformer
from flowcache.records import Pipeline
from flowcache.sampling.denoise import MagiSettings, Texts, denoise

TOLERANCE = 1e-3
OFF = Policy("off", history="refresh")


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


@pytest.mark.golden("magi_sampler_tiny", "runs")
def test_walk(golden, case, record_property):
    data, run = golden.tensors("magi_sampler_tiny"), case["name"]
    model = transformer(golden, case["model"], case["config"]["model_config"], data["null_caption_embedding"])
    settings = settings_of(case["config"])
    x0, final = data[f"{run}.x0"][0], data[f"{run}.final.x"][0]
    prefix = data[case["prefix"]][0] if case["prefix"] else None
    texts = captions(data, case, x0.shape[1] // settings.chunk)
    visits = []
    chunks = list(denoise(model, x0, texts, settings, OFF, prefix, observe=visits.append))
    compare_forwards(case, settings, visits)
    compare_traces(data, run, settings.chunk, visits, 0 if prefix is None else prefix.shape[1])
    first, held = chunks[0].index * settings.chunk, 0 if prefix is None else prefix.shape[1]
    latents = torch.cat([chunk.latents for chunk in chunks], dim=1)
    error = (latents[:, held - first :] - final[:, held:]).abs().max().item() if held else (latents - final).abs().max().item()
    record_property("error", error)
    assert error <= TOLERANCE
