"""A tiny MAGI-1 checkpoint, laid out as the official repository with its downloads: example/ and downloads/."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from flowcache.bench.shapes import vocabulary
from flowcache.families.magi.config_file import read_config
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.families.magi.vae import ViTVAE
from flowcache.families.magi.vae_config import vae_config
from tests.published import write_shards
from training.text import build_tokenizer

TEXT_DIM = 16
MODEL = {
    "model_name": "videodit_ardf", "num_layers": 2, "hidden_size": 64, "ffn_hidden_size": 96,
    "num_attention_heads": 8, "num_query_groups": 4, "kv_channels": 8, "layernorm_epsilon": 1e-6,
    "apply_layernorm_1p": True, "x_rescale_factor": 1, "half_channel_vae": False, "params_dtype": "torch.bfloat16",
    "patch_size": 2, "t_patch_size": 1, "in_channels": 16, "out_channels": 16, "cond_hidden_ratio": 0.25,
    "caption_channels": TEXT_DIM, "caption_max_length": 60, "xattn_cond_hidden_ratio": 1.0, "cond_gating_ratio": 1.0,
    "gated_linear_unit": False,
}  # fmt: skip
RUNTIME = {
    "cfg_number": 1, "cfg_t_range": [0.0, 0.0217, 0.1, 0.3, 0.999], "prev_chunk_scales": [1.5, 1.5, 1.5, 1.0, 1.0],
    "text_scales": [7.5, 7.5, 7.5, 0.0, 0.0], "noise2clean_kvrange": [5, 4, 3, 2], "clean_chunk_kvrange": 1,
    "clean_t": 0.9999, "seed": 1, "num_frames": 24, "video_size_h": 32, "video_size_w": 32, "num_steps": 8,
    "window_size": 4, "fps": 24, "chunk_width": 6, "load": "./downloads/tiny",
    "t5_pretrained": "./downloads/t5_pretrained", "t5_device": "cpu", "vae_pretrained": "./downloads/vae",
    "scale_factor": 0.18215, "temporal_downsample_factor": 4,
}  # fmt: skip
ENGINE = {
    "distributed_backend": "nccl", "fp8_quant": False, "distill_nearly_clean_chunk_threshold": 0.3,
    "shortcut_mode": "8,16,16", "distill": True,
}  # fmt: skip
DDCONFIG = {
    "conv_last_layer": True, "depth": 1, "double_z": True, "embed_dim": 256, "in_chans": 3, "ln_in_attn": True,
    "mlp_ratio": 2, "norm_code": False, "num_heads": 4, "patch_length": 4, "patch_size": 8, "qkv_bias": True,
    "video_length": 16, "video_size": 64, "with_cls_token": True, "z_chans": 16,
}  # fmt: skip


PER_TENSOR = (*(f"self_attention.linear_qkv.{name}" for name in ("q", "qx", "k", "v")), "mlp.linear_fc1")
PER_CHANNEL = ("self_attention.linear_proj", "mlp.linear_fc2")


def write_magi(folder: Path, quantised: bool = False) -> Path:
    """The config file that flowcache is pointed at. quantised: as 4.5B_distill_quant is, with 4 layers."""
    torch.manual_seed(0)
    config = folder / "example" / "tiny" / "tiny_config.json"
    weights = folder / "downloads" / "tiny" / f"inference_weight{'.fp8' * quantised}.distill"
    text, vae = folder / "downloads" / "t5_pretrained" / "t5-v1_1-xxl", folder / "downloads" / "vae"
    for place in (config.parent, weights, text, vae, folder / "example" / "assets"):
        place.mkdir(parents=True)
    model, engine = MODEL | {"num_layers": 4 if quantised else 2}, ENGINE | {"fp8_quant": quantised}
    config.write_text(json.dumps({"model_config": model, "runtime_config": RUNTIME, "engine_config": engine}))
    state = MagiTransformer(read_config(config)).state_dict()
    write_shards(in_8_bits(state, layers=(1, 2)) if quantised else state, weights, "model", 2)
    _write_vae(vae)
    _write_text(text)
    rows = np.random.default_rng(0).normal(size=(100, TEXT_DIM))
    np.savez(folder / "example" / "assets" / "special_tokens.npz", other_tokens=rows, caption_token=rows[:1])
    return config


def in_8_bits(state: dict[str, Tensor], layers: Sequence[int]) -> dict[str, Tensor]:
    """As the official program has its weights of 8 bits: not in the first and last layer, and some not at all.

    Inputs of q, qx, k, v and fc1 are divided by a scale for each channel (all alike there; not here), those of the
    other two by `smooth_scale`.
    """
    found = dict(state)
    for name in (f"videodit_blocks.layers.{layer}.{name}" for layer in layers for name in PER_TENSOR + PER_CHANNEL):
        weight = found.pop(f"{name}.weight")
        channels = torch.rand(weight.shape[1]) + 0.5
        if name.endswith(PER_CHANNEL):
            given, product = torch.tensor([0.01]), channels
            found[f"{name}.smooth_scale"] = channels[None]
        else:
            given, product = channels, channels / channels[0]
        folded = weight * product / (given if len(given) == 1 else 1)
        scale = folded.abs().amax() / 448
        found[f"{name}.weight"] = (folded / scale).to(torch.float8_e4m3fn)[None]
        found |= {f"{name}.weight_scale": scale[None], f"{name}.input_scale": given}
    return found


def _write_vae(folder: Path) -> None:
    raw = {"_class_name": "ViTVAE", "_diffusers_version": "0.32.2", "ddconfig": DDCONFIG, "model_type": "vit"}
    (folder / "config.json").write_text(json.dumps(raw))
    vae = ViTVAE(vae_config(raw, folder / "config.json"))
    save_file(vae.state_dict(), folder / "diffusion_pytorch_model.safetensors")


def _write_text(folder: Path) -> None:
    """T5 in shards that torch.save wrote."""
    tokenizer = build_tokenizer(vocabulary())
    tokenizer.save_pretrained(folder)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=TEXT_DIM, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    state = T5EncoderModel(config).state_dict()
    (folder / "config.json").write_text(config.to_json_string())
    names = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(sorted(state))}
    for file in set(names.values()):
        torch.save({name: state[name] for name in state if names[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
