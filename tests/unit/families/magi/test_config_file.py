"""Official config files of MAGI-1: what is read off them, and every fault named."""

import copy
import json
from pathlib import Path

import pytest

from flowcache.errors import InputError
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.config_file import is_config, read, read_config
from flowcache.families.magi.published import places, settings
from flowcache.families.memory import GIB, memory
from flowcache.planner.cost import cost
from flowcache.planner.price import cost_model
from flowcache.planner.workload import workload
from flowcache.records import ModelSpec, RenderRequest, Shot
from tests.published_magi import ENGINE, MODEL, RUNTIME

# What the published models' own files say where it differs from the tiny one's (example/*/*_config.json).
SMALL = {
    "num_layers": 34, "hidden_size": 3072, "ffn_hidden_size": 12288, "num_attention_heads": 24, "num_query_groups": 8,
    "kv_channels": 128, "caption_channels": 4096, "caption_max_length": 800,
}  # fmt: skip
LARGE = SMALL | {
    "num_layers": 48, "hidden_size": 6144, "ffn_hidden_size": 16384, "num_attention_heads": 48, "in_channels": 32,
    "out_channels": 32, "x_rescale_factor": 0.1, "half_channel_vae": True, "gated_linear_unit": True,
}  # fmt: skip
OFFICIAL = {"num_frames": 96, "video_size_h": 720, "video_size_w": 720, "num_steps": 64}
BASE = {"cfg_number": 3, "num_steps": 32, "video_size_w": 1280, "load": "./downloads/24B_base"}


def raw(model=MODEL, runtime=RUNTIME, engine=ENGINE):
    return copy.deepcopy({"model_config": model, "runtime_config": runtime, "engine_config": engine})


def write(folder, content, name="4.5B_distill_config.json"):
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def small(folder):
    return write(folder, raw(MODEL | SMALL, RUNTIME | OFFICIAL))


def large(folder):
    return write(folder, raw(MODEL | LARGE, RUNTIME | OFFICIAL | BASE, ENGINE | {"distill": False}), "24B_base.json")


def spec_of(file):
    return ModelSpec(**settings(file), path=str(file), digest="digest", heads=8)


def test_sizes(tmp_path):
    assert read_config(small(tmp_path)) == MagiConfig(
        dim=3072, ffn_dim=12288, heads=24, kv_heads=8, head_dim=128, layers=34
    )
    assert read_config(large(tmp_path)) == MagiConfig(
        dim=6144, ffn_dim=16384, heads=48, kv_heads=8, head_dim=128, layers=48, condition_dim=1536, gated=True,
        half_channel=True, rescale=0.1,
    )  # fmt: skip


def test_a_tiny_model_has_its_sizes_alone(tmp_path):
    flat = write(tmp_path, MODEL | {"positions": [4, 4]}, "config.json")
    assert read_config(flat).positions == (4, 4) and read_config(flat).dim == MODEL["hidden_size"]
    assert not is_config(flat) and is_config(flat, "num_query_groups")
    with pytest.raises(InputError, match="config.json: positions: got 4; accepted: two whole numbers above 0"):
        read_config(write(tmp_path, MODEL | {"positions": 4}, "config.json"))


def test_defaults(tmp_path):
    distilled, base = spec_of(small(tmp_path)), spec_of(large(tmp_path))
    assert (distilled.name, base.name) == ("4.5B_distill", "24B_base")
    assert (distilled.family, distilled.chunk, distilled.channels, base.channels) == ("magi", 6, 16, 16)
    assert (distilled.window, distilled.overlap, distilled.causal) == (60, 24, False)
    assert (distilled.first_chunk_frames, distilled.chunk_frames, distilled.size_step) == (24, 24, 16)
    assert (base.width, base.height, base.frames, base.fps) == (1280, 720, 96, 24)
    assert (distilled.steps, distilled.guidance, distilled.ar_step) == (64, 1.0, 16)
    assert (base.steps, base.guidance, base.ar_step) == (32, 7.5, 8)
    assert (distilled.pipeline.passes, distilled.pipeline.distilled) == (1, True)
    assert (base.pipeline.passes, base.pipeline.distilled) == (3, False)
    assert base.pipeline.guidance_times == (0.0, 0.0217, 0.1, 0.3, 0.999) and base.pipeline.kv_ranges == (5, 4, 3, 2)
    assert base.pipeline.text_scales == (7.5, 7.5, 7.5, 0.0, 0.0) and base.pipeline.near_clean == 0.3


def test_the_published_setting(tmp_path):
    """4.5B-distill, 720x720, 10 chunks, 64 steps, as `flowcache plan` counts it (FlowCache's table: 306 PF)."""
    spec = spec_of(small(tmp_path))
    request = RenderRequest(
        "v", (Shot("a", 240),), width=720, height=720, fps=24, seed=1, guidance=1.0, steps=64, model="m",
        policy={"name": "off"},
    )  # fmt: skip
    found = cost(workload([request], cost_model({"m": spec})))
    assert (found.segments, found.chunks) == (1, 10)
    assert found.without_reuse["dense"].flops / 1e15 == pytest.approx(306, rel=0.03)  # every chunk sees all before it
    assert found.most.flops / 1e15 == pytest.approx(208, rel=0.03)
    assert found.most.kv_bytes == memory(spec, read_config(Path(spec.path)), 1).keys_values


def test_memory_of_the_published_models(tmp_path):
    one, eight = (memory(spec_of(large(tmp_path)), read_config(large(tmp_path)), ranks) for ranks in (1, 8))
    assert one.weights == eight.weights and 44 * GIB < one.weights < 46 * GIB
    assert one.keys_values == 8 * eight.keys_values == 5 * 6 * 45 * 80 * 48 * 2 * 1024 * 2
    assert memory(spec_of(small(tmp_path)), read_config(small(tmp_path)), 1).total < 24 * GIB  # as officially said


def test_parts_lie_where_the_file_says(tmp_path):
    folder = tmp_path / "example" / "4.5B"
    folder.mkdir(parents=True)
    weights = tmp_path / "downloads" / "tiny"
    weights.mkdir(parents=True)
    for name in ("t5-v1_1-xxl", "."):
        (tmp_path / "t5" / name).mkdir(parents=True, exist_ok=True)
    runtime = RUNTIME | {"t5_pretrained": str(tmp_path / "t5"), "vae_pretrained": "nowhere"}
    file = write(folder, raw(runtime=runtime))
    found = places(file, read(file))
    assert found["transformer"] == weights / "inference_weight.distill"
    assert found["text_encoder"] == tmp_path / "t5" / "t5-v1_1-xxl" and found["vae"] == folder / "nowhere"
    base = write(folder, raw(runtime=runtime | {"cfg_number": 3}, engine=ENGINE | {"distill": False}))
    assert places(base, read(base))["transformer"] == weights / "inference_weight"


FAULTS = {
    "model_config.num_layers": (0, "got 0; accepted: a whole number above 0"),
    "model_config.hidden_size": ("64", "got '64'; accepted: a whole number above 0"),
    "model_config.num_query_groups": (3, "got 3; accepted: a divisor of the heads"),
    "model_config.kv_channels": (12, "got 12; accepted: a multiple of 8"),
    "model_config.out_channels": (8, "got 8; accepted: 16, as in_channels"),
    "model_config.gated_linear_unit": (1, "got 1; accepted: true or false"),
    "model_config.apply_layernorm_1p": (False, "got False; accepted: true"),
    "model_config.caption_max_length": (1, "got 1; accepted: 2 or more"),
    "model_config.layernorm_epsilon": (True, "got True; accepted: a number above 0"),
    "runtime_config.cfg_number": (3, "got 3; accepted: 1 for a distilled model"),
    "runtime_config.cfg_t_range": ([], "got []; accepted: a list of numbers"),
    "runtime_config.text_scales": ([7.5, 0.0], "lists of unequal length: cfg_t_range 5, prev_chunk_scales 5, text_sc"),
    "runtime_config.noise2clean_kvrange": (
        [5, 0],
        "got [5, 0]; accepted: a list of whole numbers above 0, or an empty",
    ),
    "runtime_config.clean_t": (2, "got 2; accepted: a number from 0 to 1"),
    "runtime_config.load": (None, "got None; accepted: a path"),
    "runtime_config.chunk_width": (1.5, "got 1.5; accepted: a whole number from 1 to 1,024"),
    "engine_config.fp8_quant": (1, "got 1; accepted: true or false"),
    "engine_config.shortcut_mode": ("16,16", 'got \'16,16\'; accepted: "8,16,16" or "16,16,8"'),
}


@pytest.mark.parametrize("place", FAULTS)
def test_faults_are_named(tmp_path, place):
    (section, key), (value, message) = place.split("."), FAULTS[place]
    content = raw()
    content[section][key] = value
    with pytest.raises(InputError) as caught:
        read(write(tmp_path, content))
    assert message in str(caught.value) and section in str(caught.value)
    assert len(caught.value.problems) == 1 and caught.value.problems[0].file.endswith("4.5B_distill_config.json")


def test_everything_that_is_missing_is_named_at_once(tmp_path):
    content = raw()
    del content["model_config"]["ffn_hidden_size"], content["runtime_config"]["window_size"]
    with pytest.raises(InputError) as caught:
        read(write(tmp_path, content))
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["model_config.ffn_hidden_size", "runtime_config.window_size"]
    with pytest.raises(InputError, match="engine_config: is missing"):
        read(write(tmp_path, {"model_config": {}, "runtime_config": {}}))
    with pytest.raises(InputError, match="runtime_config: is 3; accepted: an object"):
        read(write(tmp_path, raw(runtime=3)))
    with pytest.raises(InputError, match="is no JSON"):
        read(write(tmp_path, "{"))
    with pytest.raises(InputError, match="none.json: is missing"):
        read(tmp_path / "none.json")
