"""Tiny checkpoints written as SkyReels-V2-DF is published, in the official and in the diffusers layout."""

import re

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
