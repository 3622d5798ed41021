"""Published layouts: found, checked, loaded; and every kind of damage named."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowcache.errors import InputError
from flowcache.families.check import check, sound
from flowcache.families.memory import memory
from flowcache.families.registry import find, folder_digest, load_model
from flowcache.families.skyreels.config import SkyReelsConfig
from tests.published import tiny_parts, write_diffusers, write_official

WRITERS = {"official": write_official, "diffusers": write_diffusers}
TRANSFORMER = {"official": "", "diffusers": "transformer"}
STEM = {"official": "model", "diffusers": "diffusion_pytorch_model"}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    torch.set_num_threads(1)
    parts, root = tiny_parts(), tmp_path_factory.mktemp("published")
    for name, write in WRITERS.items():
        for shards in (1, 3):
            write(parts, root / f"SkyReels-V2-DF-{name}-{shards}-540P", shards)
    return root


@pytest.fixture
def copied(originals, tmp_path):
    def copy(layout, shards=1):
        return shutil.copytree(originals / f"SkyReels-V2-DF-{layout}-{shards}-540P", tmp_path / "model")

    return copy


@pytest.mark.parametrize("layout", WRITERS)
def test_defaults_are_those_of_the_published_models(originals, layout):
    spec = find(str(originals / f"SkyReels-V2-DF-{layout}-1-540P"))
    assert (spec.family, spec.chunk, spec.window, spec.overlap, spec.channels) == ("skyreels", 5, 25, 5, 16)
    assert (spec.width, spec.height, spec.fps, spec.frames, spec.heads) == (960, 544, 24, 97, 2)
    assert (spec.steps, spec.guidance, spec.shift, spec.ar_step, spec.condition_noise) == (50, 6.0, 8.0, 5, 20.0)
    assert spec.sizes == () and spec.overlap_frames == 17
    assert list(spec.reuse) == ["slow", "fast", "slow-noret", "fast-noret"]
    assert (spec.reuse["slow"]["threshold"], spec.reuse["fast"]["threshold"]) == (0.1, 0.15)


def test_the_size_is_read_off_the_name(originals, tmp_path):
    folder = shutil.copytree(originals / "SkyReels-V2-DF-official-1-540P", tmp_path / "SkyReels-V2-DF-14B-720P")
    config = json.loads((folder / "config.json").read_text()) | {"num_layers": 40}
    (folder / "config.json").write_text(json.dumps(config))
    spec = find(str(folder))
    assert (spec.name, spec.width, spec.height) == ("SkyReels-V2-DF-14B-720P", 1280, 720)
    assert (spec.window, spec.frames) == (30, 117)  # whole chunks of the official 121 frames
    assert spec.reuse["slow"]["coefficients"][0] == -3.03318725e05


def test_every_layout_loads_the_same_model(originals):
    torch.manual_seed(1)
    video, latents = torch.rand(3, 5, 16, 16), torch.randn(16, 2, 2, 4)
    outs = []
    for folder in sorted(originals.iterdir()):
        assert check(folder).problems == []
        model = load_model(str(folder))
        outs.append(
            (model.transformer.state_dict(), model.text.encode("a red circle"), model.codec.encode(video),
             model.codec.stream()(latents))
        )  # fmt: skip
    assert len(outs) == 4
    first = outs[0]
    for other in outs[1:]:
        assert all(torch.equal(other[0][name], tensor) for name, tensor in first[0].items())
        assert all(torch.equal(a, b) for a, b in zip(first[1:], other[1:], strict=True))


def test_half_precision_keeps_what_is_sensitive(originals):
    model = load_model(str(originals / "SkyReels-V2-DF-official-3-540P"), dtype="bf16").transformer
    kinds = {name: tensor.dtype for name, tensor in model.named_parameters()}
    assert kinds["blocks.0.self_attn.q.weight"] == kinds["patch_embedding.weight"] == torch.bfloat16
    whole = ("time_embedding.0.weight", "time_projection.1.bias", "blocks.1.modulation", "head.head.weight")
    assert all(kinds[name] == torch.float32 for name in whole) and model.dtype == torch.bfloat16
    out = model(torch.randn(1, 16, 2, 4, 4), torch.full((1, 2), 500.0), torch.randn(1, 512, 16))
    assert out.dtype == torch.float32 and out.isfinite().all()  # the head is whole


def transformer_files(folder, layout):
    return sorted((folder / TRANSFORMER[layout]).glob("*.safetensors"))


def changed(file, change):
    state = load_file(file)
    change(state)
    save_file(state, file)


def cut_short(file):
    os.truncate(file, file.stat().st_size - 100)


def pickled(file):
    torch.save({"a": torch.ones(1)}, file)


def extra(state):
    state["img_emb.proj.weight"] = torch.zeros(1)


def index_outside(folder, layout):
    index = folder / TRANSFORMER[layout] / f"{STEM[layout]}.safetensors.index.json"
    raw = json.loads(index.read_text())
    name = next(iter(raw["weight_map"]))
    raw["weight_map"][name] = "../stolen.safetensors"
    index.write_text(json.dumps(raw))


def swap_dtype(state):
    for name in state:
        if name.startswith("blocks.1.ffn"):
            state[name] = state[name].to(torch.int8)


def float8(state):
    for name in state:
        if name.startswith("fps_embedding"):
            state[name] = state[name].to(torch.float8_e4m3fn)


def reshape(state):
    if "patch_embedding.weight" in state:
        state["patch_embedding.weight"] = state["patch_embedding.weight"][:3].contiguous()


def mix_names(state):
    names = "blocks.0.self_attn.q.bias", "blocks.0.attn1.to_q.bias"
    for old, new in (names, names[::-1]):
        if old in state:
            state[new] = state.pop(old)
            return


def overlapping(file):
    """A header whose second tensor begins inside the first."""
    places = {name: {"dtype": "F32", "shape": [2], "data_offsets": at} for name, at in (("a", [0, 8]), ("b", [4, 12]))}
    header = json.dumps(places).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))


def everywhere(change):
    return lambda folder, layout: [changed(file, change) for file in transformer_files(folder, layout)]


def at_first(damage):
    return lambda folder, layout: damage(transformer_files(folder, layout)[0])


def lose_shard(folder, layout):
    transformer_files(folder, layout)[1].unlink()


def lose_shard_and_index(folder, layout):
    lose_shard(folder, layout)
    (folder / TRANSFORMER[layout] / f"{STEM[layout]}.safetensors.index.json").unlink()


DAMAGE = {
    "missing shard": (lose_shard, "00002-of-00003.safetensors: is missing"),
    "missing shard and index": (lose_shard_and_index, "00002-of-00003.safetensors: is missing"),
    "cut short": (at_first(cut_short), "00001-of-00003.safetensors: is cut short"),
    "pickle for safetensors": (at_first(pickled), "around a pickle"),
    "no tensors at all": (at_first(lambda file: file.write_bytes(b"nothing")), "accepted: safetensors"),
    "overlapping tensors": (at_first(overlapping), "is no safetensors file"),
    "index outside": (index_outside, "names '../stolen.safetensors'"),
    "swapped dtype": (everywhere(swap_dtype), "has dtype I8; accepted"),
    "float8": (everywhere(float8), "fps_embedding.weight: has dtype F8_E4M3; accepted"),
    "wrong shape": (everywhere(reshape), "patch_embedding.weight: has shape [3, 16, 1, 2, 2], the config asks for [24"),
    "unknown tensor": (at_first(lambda file: changed(file, extra)), "img_emb.proj.weight: is no tensor"),
    "mixed names": (everywhere(mix_names), "other layout"),
}


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_transformers_are_named(copied, damage, layout):
    folder = copied(layout, 3)
    apply, says = DAMAGE[damage]
    apply(folder, layout)
    assert says in "\n".join(map(str, check(folder).problems))
    with pytest.raises(InputError, match="is damaged: "):
        sound(str(folder))
    with pytest.raises(InputError):
        load_model(str(folder))


def test_the_bundled_model_is_sound():
    report = check(Path(find("tiny-skyreels").path))
    assert report.problems == [] and set(report.parts) == {"transformer", "vae", "text_encoder"}


def test_mixed_folders_and_missing_parts_are_named(copied):
    folder = copied("official")
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="mixes two layouts"):
        find(str(folder))
    (folder / "model_index.json").unlink()
    (folder / "Wan2.1_VAE.pth").unlink()
    shutil.rmtree(folder / "google")
    with pytest.raises(InputError) as caught:
        find(str(folder))
    assert ["Wan2.1_VAE.pth" in p.file or "google" in p.file for p in caught.value.problems] == [True, True]
    assert {"transformer", "text_encoder"} == set(check(folder).parts)


class Malice:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("name", ["Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda what, file: file.write_bytes(pickle.dumps(what))])
def test_code_in_a_pickle_is_refused_and_not_run(copied, tmp_path, name, save):
    folder = copied("official")
    save({"conv2.weight": Malice(tmp_path / "ran")}, folder / name)
    problems = check(folder).problems
    assert [problem.file for problem in problems] == [str(folder / name)] and "not run" in problems[0].message
    with pytest.raises(InputError, match="not run"):
        load_model(str(folder), texts=["a red circle"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"])
def test_damaged_pth_files_are_named(copied, name):
    folder = copied("official")
    state = torch.load(folder / name)
    first = sorted(state)[0]
    torch.save({**state, first: state[first].to(torch.int32), "more": torch.zeros(1)}, folder / name)
    faults = {problem.field: problem.message for problem in check(folder).problems}
    assert "I32" in faults[first] or "int32" in faults[first]
    assert faults["more"] == "is no tensor of this model"
    del state[sorted(state)[-2]]
    torch.save(state, folder / name)
    assert [problem.message for problem in check(folder).problems] == ["is missing"]
    cut_short(folder / name)
    assert "cut short" in check(folder).problems[0].message


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_damaged_diffusers_parts_are_named(copied, part):
    folder = copied("diffusers")
    file = next((folder / part).glob("*.safetensors"))

    def damage(state):
        del state[sorted(state)[0]]

    changed(file, damage)
    assert [problem.message for problem in check(folder).problems] == ["is missing"]
    (folder / part / "config.json").write_text("[]")
    assert check(folder).problems[0].file.endswith("config.json")


def test_other_transformers_are_refused(copied):
    folder = copied("official")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"in_dim": 36}))
    assert "takes 36 channels and gives 16" in str(check(folder).problems[0])
    (folder / "config.json").write_text(json.dumps(raw | {"num_heads": 5}))
    assert "5 heads" in str(check(folder).problems[0])


def test_large_files_are_known_by_samples(copied, monkeypatch):
    folder = copied("official")
    monkeypatch.setattr("flowcache.families.registry.HASHED_WHOLE", 1000)
    monkeypatch.setattr("flowcache.families.registry.SAMPLE", 64)
    before = folder_digest(folder)

    def touched(state):
        for tensor in state.values():
            tensor.mul_(1.001)

    changed(folder / "model.safetensors", touched)
    folder_digest.cache_clear()
    assert folder_digest(folder) != before


def test_memory_is_shared_out_between_ranks(originals):
    spec = find(str(originals / "SkyReels-V2-DF-official-1-540P"))
    config = SkyReelsConfig(5120, 13824, 40, 40)
    one, eight = memory(spec, config, 1), memory(spec, config, 8)
    assert one.weights == eight.weights and 27e9 < one.weights < 30e9
    assert one.keys_values == 8 * eight.keys_values == 2 * 2 * 40 * 25 * 34 * 60 * 5120 * 2
    assert eight.activations < one.activations and "GiB per rank" in str(one)
    sharded = memory(spec, config, 8, sharded=True)
    assert one.weights / 8 < sharded.weights < 1.25 * one.weights / 8  # time and text embeddings stay whole
    assert 3 / 40 < sharded.gathered / (one.weights - sharded.weights) * 7 / 8 < 3.1 / 40  # three of 40 blocks
    assert sharded.total == eight.total - eight.weights + sharded.weights + sharded.gathered
