"""MAGI-1's weights in the published layout: one file or shards, found by folder or file, every damage named."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowcache.errors import InputError
from flowcache.families.check import check, sound
from flowcache.families.registry import find, load_model
from tests.published_magi import write_magi


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("magi")
    return folder, write_magi(folder).relative_to(folder)


@pytest.fixture
def config(original, tmp_path):
    """The config file of a copy."""
    folder, place = original
    return shutil.copytree(folder, tmp_path / "copy") / place


def weights_of(config):
    return config.parents[2] / "downloads" / "tiny" / "inference_weight.distill"


def whole(config):
    return {name: x for file in sorted(weights_of(config).glob("*.safetensors")) for name, x in load_file(file).items()}


def test_one_file_is_as_good_as_shards(config):
    folder, state = weights_of(config), whole(config)
    sharded = load_model(str(config)).transformer.state_dict()
    shutil.rmtree(folder)
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    single = load_model(str(config)).transformer.state_dict()
    assert sharded.keys() == single.keys() == state.keys()
    assert all(torch.equal(single[name], x) and torch.equal(sharded[name], x) for name, x in state.items())


def test_published_names(config):
    names = set(whole(config))
    block = "videodit_blocks.layers.1."
    assert {"x_embedder.weight", "rope.bands", "t_embedder.mlp.0.bias", "final_linear.linear.weight"} <= names
    assert {f"{block}self_attention.linear_qkv.qx.weight", f"{block}ada_modulate_layer.proj.0.weight"} <= names


def test_found_by_folder_and_by_file(config):
    by_file, by_folder = find(str(config)), find(str(config.parent))
    assert by_file == by_folder and by_file.path == str(config) and by_file.heads == 4
    shutil.copy(config, config.with_name("other_config.json"))
    with pytest.raises(InputError, match="holds 2 configs of MAGI-1: other_config.json, tiny_config.json; give one"):
        find(str(config.parent))
    (config.parent / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="mixes two layouts: the diffusers layout .* and the official one of MAGI-1"):
        find(str(config.parent))


def test_every_missing_part_is_named(config):
    for part in ("tiny", "vae", "t5_pretrained"):
        shutil.rmtree(config.parents[2] / "downloads" / part)
    with pytest.raises(InputError) as caught:
        find(str(config))
    assert len(caught.value.problems) == 3 and all("is missing" in str(problem) for problem in caught.value.problems)
    report = check(config)
    assert (report.family, report.layout, report.problems) == ("magi", "official", caught.value.problems)


def changed(config, change):
    for file in sorted(weights_of(config).glob("*.safetensors")):
        state = load_file(file)
        change(state)
        save_file(state, file)


def first(config):
    return sorted(weights_of(config).glob("*.safetensors"))[0]


def on(name, change):
    """A change of the tensor of that name, wherever it lies."""

    def apply(state):
        if name in state:
            change(state)

    return lambda config: changed(config, apply)


def outside(config):
    index = weights_of(config) / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"]["x_embedder.weight"] = "../stolen.safetensors"
    index.write_text(json.dumps(raw))


def other_sizes(config):
    raw = json.loads(config.read_text())
    raw["model_config"] |= {"num_layers": 3}
    config.write_text(json.dumps(raw))


QX, FC1 = (
    f"videodit_blocks.layers.0.{name}.weight" for name in ("self_attention.linear_qkv.qx", "mlp.linear_fc1")
)  # fmt: skip
DAMAGE = {
    "missing shard": (lambda config: first(config).unlink(), "00001-of-00002.safetensors: is missing"),
    "cut short": (lambda config: os.truncate(first(config), first(config).stat().st_size - 9), "is cut short"),
    "pickle": (lambda config: torch.save({"a": torch.ones(1)}, first(config)), "around a pickle"),
    "index outside": (outside, "names '../stolen.safetensors'"),
    "missing tensor": (on("rope.bands", lambda state: state.pop("rope.bands")), "rope.bands: is missing"),
    "wrong shape": (on(QX, lambda state: state.update({QX: state[QX][:3].clone()})), f"{QX}: has shape [3, 64], the"),
    "8 bits": (
        on(FC1, lambda state: state.update({FC1: state[FC1].to(torch.int8)})), f"{FC1}: has dtype I8; accepted: F64",
    ),
    "unknown": (
        on(QX, lambda state: state.update({QX + "_scale": torch.ones(1)})), f"{QX}_scale: is no tensor of this model",
    ),
    "another depth": (other_sizes, "videodit_blocks.layers.2.ada_modulate_layer.proj.0.bias: is missing"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(config, damage):
    apply, says = DAMAGE[damage]
    apply(config)
    assert says in "\n".join(map(str, check(config).problems))
    with pytest.raises(InputError, match="is damaged: "):
        sound(str(config))
    with pytest.raises(InputError):
        load_model(str(config))
