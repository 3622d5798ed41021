"""Checkpoints whose files are sound each, and make no model, or one of noise."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flowcache.errors import InputError
from flowcache.families.check import check
from flowcache.families.registry import find, folder_of
from tests.published import Parts, tiny_parts, write_diffusers, write_official
from tests.published_magi import write_magi


@pytest.fixture(scope="module")
def parts() -> Parts:
    return tiny_parts()


@pytest.fixture
def folder(parts, tmp_path):
    return write_diffusers(parts, tmp_path / "model")


def said(path: Path) -> str:
    return "\n".join(map(str, check(path).problems))


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "value"),
    [("latents_mean", [0.0] * 3), ("latents_std", [0.0] * 16), ("latents_std", None), ("latents_mean", ["a"] * 16)],
)
def test_a_vae_without_a_scale_for_each_channel_is_refused(folder, name, value):
    change(folder / "vae" / "config.json", **{name: value})
    assert f"vae/config.json: {name}: got " in said(folder) and "accepted: 16 numbers" in said(folder)


def test_a_vae_of_another_model_is_refused(folder):
    from diffusers import AutoencoderKLWan

    shutil.rmtree(folder / "vae")
    AutoencoderKLWan(base_dim=4, z_dim=8, latents_mean=[0.0] * 8, latents_std=[1.0] * 8).save_pretrained(folder / "vae")
    assert "vae: makes latents of 8 channels for 4 frames of 8 x 8 pixels; the transformer takes 16" in said(folder)


def test_texts_of_another_model_are_refused(parts, folder):
    from training.text import build_umt5

    shutil.rmtree(folder / "text_encoder")
    build_umt5(len(parts.tokenizer) - 1, dim=32).save_pretrained(folder / "text_encoder")
    assert "text_encoder: makes 32 numbers of a token; the transformer takes 16" in said(folder)
    assert f"tokenizer: has {len(parts.tokenizer)} tokens, the text encoder knows {len(parts.tokenizer) - 1}" in said(
        folder
    )


def test_a_tokenizer_never_asks_whether_to_run_its_code(folder, monkeypatch):
    """transformers asks on the terminal, and waits."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    (folder / "tokenizer" / "code.py").write_text("raise SystemExit(9)")
    odd = {"tokenizer_class": "Odd", "auto_map": {"AutoTokenizer": ["code.Odd", None]}}
    change(folder / "tokenizer" / "tokenizer_config.json", **odd)
    assert "holds no tokenizer" in said(folder) and not asked


def test_a_t5_with_its_decoder_is_an_encoder(tmp_path):
    config = write_magi(tmp_path)
    (file,) = tmp_path.rglob("pytorch_model-00001-of-00002.bin")
    torch.save(
        torch.load(file) | {"decoder.final_layer_norm.weight": torch.ones(16), "lm_head.weight": torch.ones(2, 2)}, file
    )
    assert not check(config).problems


@pytest.mark.parametrize(
    "sizes", [{"num_attention_heads": "2"}, {"num_attention_heads": [2], "attention_head_dim": 10**9}]
)
def test_heads_that_are_no_number_are_told(folder, sizes):
    change(folder / "transformer" / "config.json", **sizes)
    assert "num_attention_heads: got " in said(folder) and "accepted: a whole number above 0" in said(folder)


def test_an_index_of_parts_that_is_none_is_told_what_it_is(folder):
    (folder / "model_index.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    assert "model_index.json: is a Git LFS pointer" in said(folder)


def test_a_transformer_alone_is_sent_to_the_folder_above(folder):
    assert "is that of a transformer alone, as diffusers lays it out; give the folder above it" in said(
        folder / "transformer"
    )


def test_a_file_for_pictures_beside_a_model_that_takes_none_is_a_doubt(parts, tmp_path):
    folder = write_official(parts, tmp_path / "model")
    (folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth").write_bytes(b"")
    found = check(folder)
    assert not found.problems and "belongs to an image-to-video model" in str(found.warnings[0])


def test_a_cache_is_known_by_its_snapshots(parts, tmp_path):
    root = tmp_path / "models--a--b"
    root.mkdir()
    with pytest.raises(InputError, match="holds no snapshots; the download did not finish: run hf download a/b again"):
        folder_of(str(root))
    write_official(parts, root / "snapshots" / "1f")
    assert folder_of(str(root)) == folder_of(str(root / "snapshots")) == root / "snapshots" / "1f"


def test_a_path_that_is_not_utf8_is_told(tmp_path):
    with pytest.raises(InputError, match="the path is not UTF-8; rename it"):
        find(f"{tmp_path}/\udcff")


def quantised(config: Path, edit) -> str:
    for file in config.parents[2].rglob("*/inference_weight.fp8.distill/*.safetensors"):
        state = {name: edit(name, tensor) for name, tensor in load_file(file).items()}
        save_file({name: tensor for name, tensor in state.items() if tensor is not None}, file)
    for index in config.parents[2].rglob("model.safetensors.index.json"):
        index.unlink()
    return said(config)


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("weight_scale", "and no weight_scale"),
        ("input_scale", "without input_scale"),
        ("smooth_scale", "beside smooth_scale"),
        ("1.mlp.linear_fc1.weight_scale", "and no weight_scale"),
    ],
)
def test_a_lost_scale_of_8_bits_is_told(tmp_path, lost, says):
    config = write_magi(tmp_path, quantised=True)
    assert says in quantised(config, lambda name, tensor: None if name.endswith(lost) else tensor)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_spoilt_scale_of_8_bits_is_told(tmp_path, value):
    config = write_magi(tmp_path, quantised=True)
    told = quantised(config, lambda name, tensor: tensor * 0 + value if name.endswith("smooth_scale") else tensor)
    assert "linear_proj.smooth_scale: holds other than finite numbers above 0" in told


def test_scales_are_floats(tmp_path):
    config = write_magi(tmp_path, quantised=True)
    told = quantised(config, lambda name, tensor: tensor.long() if name.endswith("weight_scale") else tensor)
    assert "has weight_scale of dtype I64" in told


def test_one_float8_matrix_without_scale_among_others_is_told(folder):
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    state, names = load_file(file), ["blocks.0.attn1.to_q.weight", "blocks.0.attn1.to_k.weight"]
    state |= {name: state[name].to(torch.float8_e4m3fn) for name in names}
    save_file(state, file)
    assert not said(folder)
    save_file(state | {f"{names[0]}_scale": torch.ones(1)}, file)
    assert f"{names[1]}: has no weight_scale, which the others of 8 bits have" in said(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("fps", 121), ("window_size", 1001), ("video_size_w", 10**9), ("num_frames", 10**12), ("num_steps", 10**6)],
)
def test_numbers_that_no_row_may_ask_for_are_refused_in_a_config_too(tmp_path, key, value):
    config = write_magi(tmp_path)
    raw = json.loads(config.read_text())
    raw["runtime_config"][key] = value
    config.write_text(json.dumps(raw))
    assert f"runtime_config.{key}: got {value}; accepted: a whole number from 1 to " in said(config)


@pytest.mark.parametrize(
    ("rows", "says"),
    [(np.full((100, 16), np.nan), "not finite"), (np.zeros((2_000_000, 16)), "unpacks to 256,000,")],
)
def test_special_tokens_are_finite_and_few(tmp_path, rows, says):
    config = write_magi(tmp_path)
    (file,) = tmp_path.rglob("special_tokens.npz")
    np.savez_compressed(file, other_tokens=rows)
    assert says in said(config)
