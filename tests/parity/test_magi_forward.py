"""MAGI-1's transformer against the official one, which takes several chunks at once, with K/V ranges in tokens."""

import json

import pytest
import torch

from flowcache.families.magi.config_file import read_config
from flowcache.families.magi.transformer import PARTS, MagiTransformer
from flowcache.models.attention import attention
from tests.parity.magi_runs import config_of, known

CLOSE = {"atol": 1e-4, "rtol": 0}
KWARGS = {
    "chunk_width", "denoising_range_num", "distill_interval", "distill_nearly_clean_chunk", "fwd_extra_1st_chunk",
    "extract_prefix_video_feature", "num_steps", "range_num", "slice_point",
}  # fmt: skip


class Official:
    """The forwards of a run one after the other, on the K/V cache that some of them write."""

    def __init__(self, golden, size, run, folder):
        facts = golden.facts(f"magi_dit_{size}_tiny")
        known(facts["runs"][run], {"config", "y", "emb_masks", "static", "steps", "final_chunks"}, run)
        self.run, self.data = run, golden.tensors(f"magi_dit_{size}_tiny")
        self.facts, self.inner = facts["runs"][run], facts["inner"]
        config = config_of(self.facts["config"])
        (folder / "config.json").write_text(json.dumps(config))
        self.model = MagiTransformer(read_config(folder / "config.json")).eval()
        self.model.load_state_dict(golden.tensors(f"magi_dit_{size}_tiny.weights"))
        self.chunk = config["runtime_config"]["chunk_width"]
        self.distilled = config["engine_config"]["distill"]
        tokens, heads, dim = self.facts["static"]["max_sequence_length"], self.model.kv_heads, self.model.head_dim
        self.cache = torch.full((self.model.layers, 2, tokens, heads, dim), torch.nan)

    def steps(self):
        """(step, dispatch, forward) in order; each must be run."""
        for step in self.facts["steps"]:
            for dispatch in step["dispatch"]:
                for forward in dispatch["forwards"]:
                    known(forward["kwargs"], KWARGS, forward["key"])
                    yield step, dispatch, forward

    def input(self, dispatch, forward):
        """The latents of each chunk, [1, C, f, H, W]."""
        chunks = self.data[f"{self.run}.{dispatch['key']}.x"].split(self.chunk, dim=2)
        if forward["x_from"].startswith("cat("):  # the near-clean copy
            return [*chunks, chunks[forward["kwargs"]["fwd_extra_1st_chunk"]]]
        return chunks[-len(forward["t"]) :] if "stacked" in forward["x_from"] else chunks

    def text(self, forward, index):
        row, chunk = forward["y_rows"][index]
        mask = self.data[self.facts["emb_masks"]][tuple(forward["mask_rows"][index])].bool()
        dropped = torch.tensor(forward["caption_dropout_mask"])
        return self.model.text(self.data[self.facts["y"]][row, chunk][mask][None], dropped=dropped)

    def distill(self, forward):
        """What a distilled model is told of its steps."""
        if not self.distilled:
            return None
        steps = forward["kwargs"]["num_steps"]
        return 8 / forward["kwargs"]["distill_interval"] if steps == 12 else steps / 2

    def forward(self, dispatch, forward):
        """The official output, chunk after chunk."""
        times = torch.tensor(forward["t"]).flatten()
        alone = not forward["has_inference_params"]
        memory = self.cache if forward["update_kv_cache"] else self.cache.clone()
        outs = []
        for index, (latents, time) in enumerate(zip(self.input(dispatch, forward), times, strict=True)):
            place = 0 if alone else forward["kwargs"]["slice_point"] + index
            grid = self.model.grid(latents, place * self.chunk)
            first, last = (end - (index * grid.tokens if alone else 0) for end in forward["kv_range"][index])
            begin = place * grid.tokens
            assert last == begin + grid.tokens
            # The near-clean copy comes last and leaves nothing behind; nor, without guidance by one pass, does the
            # newest chunk officially when there might have been one. It is run again before anybody sees it.
            written = not alone and not (
                forward["kwargs"].get("distill_nearly_clean_chunk") and index == len(times) - 1
            )
            conditioning = self.model.condition((1000 * time).expand(1, self.chunk), grid, 24, self.distill(forward))

            def attend(layer, q, k, v, first=first, begin=begin, written=written):
                keys, values = (
                    torch.cat([x[first:begin], new[0]]) for x, new in zip(memory[layer], (k, v), strict=True)
                )
                if written:
                    memory[layer, :, begin : begin + len(k[0])] = torch.stack([k[0], v[0]])
                return attention(q, keys[None], values[None])

            tokens = self.model.embed(latents)
            tokens = self.model.transform(
                tokens, conditioning, [self.text(forward, index)], [self.model.rope(grid)], attend
            )
            outs.append(self.model.project(tokens, conditioning, grid))
        return torch.cat(outs, 0 if alone else 2)


def follow(golden, size, case, folder):
    """Every forward and every cache of a run."""
    official = Official(golden, size, case["name"], folder)
    seen = set()
    with torch.inference_mode():
        for step, dispatch, forward in official.steps():
            key = f"{case['name']}.{forward['key']}.out"
            out = official.forward(dispatch, forward)
            torch.testing.assert_close(out, official.data[key], **CLOSE, msg=lambda m, key=key: f"{key}: {m}")
            seen.add(key)
            if forward is step["dispatch"][-1]["forwards"][-1]:
                compare_cache(official, f"{case['name']}.step{step['step']:03}.kv_cache.layer")
    assert seen == {key for key in official.data if key.startswith(f"{case['name']}.") and key.endswith(".out")}


def compare_cache(official, prefix):
    for layer, memory in enumerate(official.cache):
        if f"{prefix}{layer}" in official.data:
            ours = torch.cat(list(memory), dim=-1)
            torch.testing.assert_close(ours, official.data[f"{prefix}{layer}"], **CLOSE, equal_nan=True)


@pytest.mark.golden("magi_dit_4p5b_tiny", "runs")
def test_forwards_of_4p5b(golden, case, tmp_path):
    follow(golden, "4p5b", case, tmp_path)


@pytest.mark.golden("magi_dit_24b_tiny", "runs")
def test_forwards_of_24b(golden, case, tmp_path):
    follow(golden, "24b", case, tmp_path)


@pytest.mark.golden("magi_dit_4p5b_tiny", "runs", only="base")
def test_intermediates_of_4p5b(golden, case, tmp_path):
    compare_intermediates(Official(golden, "4p5b", case["name"], tmp_path))


@pytest.mark.golden("magi_dit_24b_tiny", "runs", only="base")
def test_intermediates_of_24b(golden, case, tmp_path):
    compare_intermediates(Official(golden, "24b", case["name"], tmp_path))


def compare_intermediates(official):
    """The first place to look when a forward is off."""
    inner, seen = official.inner, {}
    wanted = {key.removeprefix("inner."): x for key, x in official.data.items() if key.startswith("inner.")}
    with torch.inference_mode():
        for step, dispatch, forward in official.steps():
            if (step["step"], dispatch["forwards"].index(forward)) == (inner["step"], inner["forward"]):
                record(official.model, seen)
                official.forward(dispatch, forward)
                break
            official.forward(dispatch, forward)
    tokens = len(wanted["embed.x"])
    places = torch.arange(len(seen["embed.condition"])).repeat_interleave(tokens // len(seen["embed.condition"]))
    assert torch.equal(wanted.pop("embed.condition_map").flatten(), places)
    assert wanted.keys() == seen.keys()
    for key, expected in wanted.items():
        found = torch.cat(seen[key])
        torch.testing.assert_close(found, expected.view_as(found), **CLOSE, msg=lambda m, key=key: f"{key}: {m}")


def record(model, seen):
    """Each module's output, chunk after chunk, under its golden name."""

    def keep(module, key, of_output=lambda out: out[0]):
        module.register_forward_hook(lambda _, given, out: seen.setdefault(key, []).append(of_output(out)))

    def keep_input(module, key, of_input):
        module.register_forward_hook(lambda _, given, out: seen.setdefault(key, []).append(of_input(given[0][0])))

    first = model.videodit_blocks.layers[0]
    keep(model.x_embedder, "embed.x", lambda out: out[0].flatten(1).T)
    keep(model.y_embedder.y_proj_xattn, "embed.y_xattn_flat")
    keep(model.rope, "embed.rope_sin_cos", lambda out: out)
    keep_input(first.ada_modulate_layer, "embed.condition", lambda c: c)
    keep(first.ada_modulate_layer.proj, "layer0.ada_out_before_softcap")
    for part, key in enumerate(("layer0.core_attn_out", "layer0.cross_attn_out")):
        parts = lambda x, part=part: x.unflatten(-1, (PARTS, 2, -1))[:, :, part].flatten(1)  # noqa: E731
        keep_input(first.self_attention.linear_proj, key, parts)
    keep(first.self_attention.linear_proj, "layer0.attn_proj_out")
    keep(first.self_attn_post_norm, "layer0.self_attn_post_norm_out")
    keep(first.mlp, "layer0.mlp_out")
    for layer, block in enumerate(model.videodit_blocks.layers):
        keep(block, f"layer{layer}.out")
    keep(model.videodit_blocks.final_layernorm, "final_layernorm_out")
