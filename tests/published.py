"""Tiny checkpoints written as SkyReels-V2-DF is published, in the official and in the diffusers layout."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from flowcache.bench.shapes import vocabulary
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.families.skyreels.weights import to_diffusers
from training.text import build_tokenizer, build_umt5

CONFIG = SkyReelsConfig(dim=24, ffn_dim=32, heads=2, layers=2, text_dim=16, text_len=512, inject_sample_info=True)
OFFICIAL = {
    "_class_name": "WanModel", "model_type": "t2v", "dim": 24, "ffn_dim": 32, "num_heads": 2, "num_layers": 2,
    "in_dim": 16, "out_dim": 16, "text_dim": 16, "text_len": 512, "freq_dim": 256, "eps": 1e-6,
    "inject_sample_info": True,
}  # fmt: skip
DIFFUSERS = {
    "_class_name": "SkyReelsV2Transformer3DModel", "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32,
    "num_layers": 2, "in_channels": 16, "out_channels": 16, "text_dim": 16, "freq_dim": 256,
    "patch_size": [1, 2, 2], "eps": 1e-6, "inject_sample_info": True,
}  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """One tiny model, before it is written."""

    transformer: dict[str, Tensor]  # official names
    vae: Any
    text: Any
    tokenizer: Any


def tiny_parts() -> Parts:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    transformer = {name: tensor.clone() for name, tensor in SkyReelsTransformer(CONFIG).state_dict().items()}
    tokenizer = build_tokenizer(vocabulary())
    vae = AutoencoderKLWan(base_dim=4).eval().requires_grad_(False)
    return Parts(transformer, vae, build_umt5(len(tokenizer), dim=16), tokenizer)


def write_diffusers(parts: Parts, folder: Path, shards: int = 1) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "SkyReelsV2DiffusionForcingPipeline"}')
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps(DIFFUSERS))
    write_shards(to_diffusers(parts.transformer), folder / "transformer", "diffusion_pytorch_model", shards)
    parts.vae.save_pretrained(folder / "vae")
    parts.text.save_pretrained(folder / "text_encoder")
    parts.tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def write_official(parts: Parts, folder: Path, shards: int = 1) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(OFFICIAL))
    write_shards(parts.transformer, folder, "model", shards)
    torch.save(official_vae(parts.vae.state_dict()), folder / "Wan2.1_VAE.pth")
    torch.save(official_text(parts.text.state_dict()), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    parts.tokenizer.save_pretrained(folder / "google" / "umt5-xxl")
    return folder


def write_shards(state: dict[str, Tensor], folder: Path, stem: str, shards: int) -> None:
    """One safetensors file, or several and their index."""
    if shards == 1:
        save_file(state, folder / f"{stem}.safetensors")
        return
    files = {name: f"{stem}-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(sorted(state))}
    for file in set(files.values()):
        save_file({name: state[name] for name in state if files[name] == file}, folder / file)
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


INSIDE = {
    "norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}  # fmt: skip
ENDS = {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}


def official_vae(state: dict) -> dict:
    """diffusers' AutoencoderKLWan -> Wan2.1_VAE.pth."""
    return {official_vae_name(name): tensor.clone() for name, tensor in state.items()}


def official_vae_name(name: str) -> str:
    name = re.sub(r"^quant_conv", "conv1", re.sub(r"^post_quant_conv", "conv2", name))
    name = re.sub(r"\.(norm1|conv1|norm2|conv2|conv_shortcut)\.", lambda m: f".{INSIDE[m[1]]}.", name)
    name = re.sub(r"coder\.(conv_in|norm_out|conv_out)\.", lambda m: f"coder.{ENDS[m[1]]}.", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"middle.{2 * int(m[1])}", name)
    name = name.replace("mid_block.attentions.0", "middle.1").replace("down_blocks", "downsamples")
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"upsamples.{4 * int(m[1]) + 3}", name)


TEXT = {
    "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
    "layer.0.SelfAttention": "attn",
    "layer.0.layer_norm": "norm1",
    "layer.1.layer_norm": "norm2",
    "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
    "layer.1.DenseReluDense.wi_1": "ffn.fc1",
    "layer.1.DenseReluDense.wo": "ffn.fc2",
    "encoder.block": "blocks",
    "encoder.final_layer_norm": "norm",
    "shared": "token_embedding",
}


def official_text(state: dict) -> dict:
    """transformers' UMT5EncoderModel -> models_t5_umt5-xxl-enc-bf16.pth."""
    named = {}
    for name, tensor in state.items():
        if name == "encoder.embed_tokens.weight":
            continue
        for old, new in TEXT.items():
            name = name.replace(old, new)
        named[name] = tensor.clone()
    return named
