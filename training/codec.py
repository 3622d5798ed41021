"""Fits the codec to shape videos: python -m training.codec --out runs/codec --minutes 12

The basis first (principal directions of the patches), then, with it held fixed, the decoder's refiner.
`training.train` needs the basis alone and fits the same one, so both trainings may run side by side.
"""

import argparse
import json
import time
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file
from torch import Tensor

from flowcache.families.codecs import WEIGHTS, PatchCodec, load_codec
from training.shapes import FRAMES, WORLD, World, render, render_ground, sample_scene

CHANNELS = 24


def fit_codec(channels: int = CHANNELS, videos: int = 600, seed: int = 1) -> PatchCodec:
    """Uncentred principal directions, so that flat colours need no offset; then mean and scale of each channel.

    The scale is the spread that the shape brings, the background left out: it would drown the shape in three channels.
    """
    rng = Random(seed)
    codec = PatchCodec(channels)
    width = codec.basis.shape[1]
    moment = torch.zeros(width, width, dtype=torch.float64)
    samples, spread = [], torch.zeros(width, width, dtype=torch.float64)
    for _ in range(videos):
        scene = sample_scene(rng)
        video, ground = render(scene), render_ground(scene)
        patches = codec.patches(video).flatten(0, 2)
        moment += (patches.T @ patches).double()
        shape = codec.patches(video - ground).flatten(0, 2)
        spread += (shape.T @ shape).double() / len(shape) / videos
        samples.append(patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(seed))[:50]])
    _, vectors = torch.linalg.eigh(moment)
    codec.basis.copy_(vectors.flip(1).T[:channels])
    latents = torch.cat(samples) @ codec.basis.T
    codec.mean.copy_(latents.mean(0))
    codec.scale.copy_((codec.basis.double() @ spread @ codec.basis.T.double()).diagonal().sqrt())
    return codec


def train_refiner(codec: PatchCodec, minutes: float, hidden: int = 192, videos: int = 3, seed: int = 0) -> PatchCodec:
    """Least squares on pixels, from the refiner that `codec` has or from nothing.

    The latents are noised a little, since those of a diffusion model are not perfect either.
    """
    torch.manual_seed(seed)
    rng = Random(seed)
    refined = codec
    if codec.refiner is None:
        refined = PatchCodec(codec.channels, codec.time_stride, codec.space_stride, hidden)
        refined.load_state_dict(codec.state_dict(), strict=False)
        torch.nn.init.zeros_(refined.refiner.out.weight)
    refined.requires_grad_(True)
    optimizer = torch.optim.AdamW(refined.refiner.parameters(), lr=1.5e-3, betas=(0.9, 0.98))
    began, step = time.monotonic(), 0
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * min(1, (step + 1) / 50) * (1 - share)
        loss = 0
        for _ in range(videos):
            video = render(sample_scene(rng, rng.random() < 0.5))
            latents = refined.encode(video)
            latents = latents + 0.1 * rng.random() * torch.randn_like(latents)
            decoded = refined.decode(latents)
            loss = loss + (decoded[:, refined.time_stride - 1 :] - video).square().mean() / videos
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 50 == 0:
            print(f"step {step} minutes {share * minutes:.1f} psnr {10 * torch.log10(4 / loss).item():.2f}", flush=True)
    return refined


def psnr(a: Tensor, b: Tensor) -> float:
    """Of videos in -1..1, in dB."""
    return float(10 * torch.log10(4 / (a - b).square().mean()))


def round_trip(codec: PatchCodec, videos: int = 64, seed: int = 99, world: World = WORLD) -> float:
    """Mean PSNR of unseen videos after encoding and decoding, in dB."""
    rng = Random(seed)
    frames = FRAMES if codec.causal else FRAMES // codec.time_stride * codec.time_stride
    originals = [render(sample_scene(rng, world=world), frames) for _ in range(videos)]
    return sum(psnr(video, codec.stream()(codec.encode(video))) for video in originals) / videos


def save_codec(codec: PatchCodec, folder: Path) -> None:
    """config.json and safetensors, as `load_codec` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half().contiguous() for name, tensor in codec.state_dict().items()}
    save_file(tensors | {"mean": codec.mean, "scale": codec.scale}, folder / WEIGHTS)
    config = {
        "_class_name": "PatchCodec",
        "latent_channels": codec.channels,
        "time_stride": codec.time_stride,
        "space_stride": codec.space_stride,
        "hidden": codec.hidden,
        "causal": codec.causal,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--start", type=Path, help="a folder that it wrote before, to be trained further")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    codec = load_codec(arguments.start) if arguments.start else fit_codec()
    print(f"before: {round_trip(codec):.2f} dB", flush=True)
    codec = train_refiner(codec, arguments.minutes, seed=arguments.seed)
    print(f"after: {round_trip(codec):.2f} dB", flush=True)
    save_codec(codec, arguments.out)


if __name__ == "__main__":
    main()
