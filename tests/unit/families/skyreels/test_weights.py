import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowcache.errors import InputError
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.families.skyreels.weights import official_name, to_diffusers, to_official, transformer_part

CONFIG = SkyReelsConfig(dim=24, ffn_dim=32, heads=2, layers=2, text_dim=16, text_len=8, inject_sample_info=True)
OFFICIAL = {
    "_class_name": "WanModel", "dim": 24, "ffn_dim": 32, "num_heads": 2, "num_layers": 2, "in_dim": 16, "out_dim": 16,
    "text_dim": 16, "text_len": 8, "freq_dim": 256, "eps": 1e-6, "inject_sample_info": True,
}  # fmt: skip
DIFFUSERS = {
    "_class_name": "SkyReelsV2Transformer3DModel", "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32,
    "num_layers": 2, "in_channels": 16, "out_channels": 16, "text_dim": 16, "text_len": 8, "freq_dim": 256,
    "patch_size": [1, 2, 2], "eps": 1e-6, "inject_sample_info": True,
}  # fmt: skip


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return SkyReelsTransformer(CONFIG).state_dict()


def write(folder, config: dict, state: dict, shards: int = 1) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(state)
    if shards == 1:
        save_file(state, folder / "model.safetensors")
        return
    weight_map = {name: f"part-{i % shards}.safetensors" for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({name: state[name] for name in names if weight_map[name] == file}, folder / file)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("config, layout", [(OFFICIAL, to_official), (DIFFUSERS, to_diffusers)])
def test_both_layouts_give_the_same_model(tmp_path, weights, config, layout, shards):
    write(tmp_path, config, layout(weights), shards)
    loaded = transformer_part(tmp_path).load().state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_names_translate_both_ways_as_published(pytestconfig):
    """The official-to-diffusers map of every parameter, as the golden files list it."""
    path = pytestconfig.getoption("--golden") / "skyreels_forward.json"
    if not path.exists():
        pytest.skip("the golden directory has no skyreels_forward.json")
    for official, diffusers in json.loads(path.read_text())["keymap_official_to_diffusers"]:
        assert list(to_diffusers({official: None})) == [diffusers]
        assert official_name(diffusers) == official == official_name(official)


def test_every_fault_of_the_tensors_is_named(tmp_path, weights):
    state = to_official(weights)
    del state["blocks.1.ffn.0.bias"]
    state["head.head.weight"] = torch.zeros(3, 3)
    state["blocks.7.norm3.weight"] = torch.zeros(24)
    write(tmp_path, OFFICIAL, state)
    with pytest.raises(InputError) as caught:
        transformer_part(tmp_path).load()
    faults = {problem.field: problem.message for problem in caught.value.problems}
    assert faults == {
        "blocks.1.ffn.0.bias": "is missing",
        "head.head.weight": "has shape [3, 3], the config asks for [64, 24]",
        "blocks.7.norm3.weight": "is no tensor of this model",
    }


def damage_truncated(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def damage_no_weights(folder):
    (folder / "model.safetensors").unlink()


def damage_no_config(folder):
    (folder / "config.json").unlink()


def damage_config(folder):
    (folder / "config.json").write_text('{"dim": 24}')


@pytest.mark.parametrize(
    "damage, says",
    [
        (damage_truncated, "cut short: its header says .* bytes, the file has .*; download it again"),
        (damage_no_weights, "holds no"),
        (damage_no_config, "config.json: is missing"),
        (damage_config, "ffn_dim"),
    ],
)
def test_damaged_folders(tmp_path, weights, damage, says):
    write(tmp_path, OFFICIAL, to_official(weights))
    damage(tmp_path)
    with pytest.raises(InputError, match=says):
        transformer_part(tmp_path).load()


def test_half_precision_on_disk_is_loaded_as_asked(tmp_path, weights):
    write(tmp_path, OFFICIAL, {name: tensor.half() for name, tensor in weights.items()})
    assert transformer_part(tmp_path).load().dtype == torch.float32
    stored = load_file(tmp_path / "model.safetensors")["head.head.weight"]
    assert torch.equal(transformer_part(tmp_path).load().head.head.weight, stored.float())
