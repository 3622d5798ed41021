"""Fits the codec's fixed basis to shape videos: the strongest principal directions of their patches."""

import json
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file
from torch import Tensor

from flowcache.models.codec import PatchCodec
from training.shapes import render, sample_scene


def fit_codec(channels: int, videos: int = 600, seed: int = 1) -> PatchCodec:
    """Uncentred principal directions, so that flat colours need no offset; then mean and scale of each channel."""
    rng = Random(seed)
    width = 3 * 4 * 8 * 8
    identity = PatchCodec(torch.eye(width), torch.zeros(width), torch.ones(width))
    moment = torch.zeros(width, width, dtype=torch.float64)
    samples = []
    for _ in range(videos):
        patches = identity.patches(render(sample_scene(rng))).flatten(0, 2)
        moment += (patches.T @ patches).double()
        samples.append(patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(seed))[:50]])
    _, vectors = torch.linalg.eigh(moment)
    basis = vectors.flip(1).T[:channels].float().contiguous()
    latents = torch.cat(samples) @ basis.T
    return PatchCodec(basis, latents.mean(0), latents.std(0))


def psnr(a: Tensor, b: Tensor) -> float:
    """Of videos in -1..1, in dB."""
    return float(10 * torch.log10(4 / (a - b).square().mean()))


def save_codec(codec: PatchCodec, folder: Path) -> None:
    """config.json and safetensors, as `load_codec` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"basis": codec.basis.half(), "mean": codec.mean, "scale": codec.scale}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    config = {
        "_class_name": "PatchCodec",
        "latent_channels": len(codec.mean),
        "time_stride": codec.time_stride,
        "space_stride": codec.space_stride,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
