"""The codec of shape videos: a fixed basis (principal directions of the patches), and a refiner, trained by a plan."""

import json
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from flowcache.bench.shapes import FRAMES, WORLD, World, render, render_ground, sample_scene
from flowcache.families.codecs import WEIGHTS, PatchCodec
from flowcache.families.refiners import EdgeRefiner
from training.plan import Stage
from training.task import Loss, generator

CHANNELS, HIDDEN = 24, 128
CENTRED = 3  # channels whose mean is subtracted: flat colours
CLIP, SHOWN = 6, 3  # latent frames of those that are measured, and of those that are learned: more scenes in a step
LENGTHS = {"clip": 1}
NOISE = 0.35  # the most that latents are noised by, as those that a diffusion model leaves are
LOOKS = (0.0, 0.1, 0.2, 0.3)  # levels at which the round trip is measured


def fit_codec(channels: int = CHANNELS, videos: int = 600, seed: int = 1) -> PatchCodec:
    """Uncentred principal directions, so that flat colours need no offset; then mean and scale of the channels.

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
    codec.mean[:CENTRED] = latents.mean(0)[:CENTRED]
    codec.scale.copy_((codec.basis.double() @ spread @ codec.basis.T.double()).diagonal().sqrt())
    return codec


class Refining:
    """A `Task`: least squares on pixels, from the refiner that `codec` has or from nothing, its basis held fixed."""

    def __init__(self, codec: PatchCodec):
        self.model = PatchCodec(codec.channels, codec.time_stride, codec.space_stride, HIDDEN, codec.causal)
        known = codec.state_dict()
        if not isinstance(codec.refiner, EdgeRefiner):
            known = {name: tensor for name, tensor in known.items() if not name.startswith("refiner.")}
            nn.init.zeros_(refiner_of(self.model).out.weight)
        self.model.load_state_dict(known, strict=False)
        self.lengths = dict(LENGTHS)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        groups = [{"params": list(refiner_of(self.model).parameters()), "share": 1.0}]
        return [torch.optim.AdamW(groups, betas=(0.9, 0.98))]

    def loss(self, length: str, rows: list[Random], stage: Stage, room: float) -> Loss:
        total, pixels = torch.zeros(()), 0
        for rng in rows:
            video = render(sample_scene(rng, rng.random() < 0.5), clip_frames(self.model, SHOWN))
            decoded = noised_round_trip(self.model, video, NOISE * rng.random(), rng)
            total, pixels = total + (decoded - video).square().sum(), pixels + video.numel()
        return Loss(total, torch.tensor(pixels))

    @torch.no_grad()
    def probe(self, model: nn.Module) -> dict[str, Any]:
        """Mean PSNR of clips by noise of their latents, in dB."""
        assert isinstance(model, PatchCodec)
        return {f"dB {level}": round(noisy_psnr(model, level), 2) for level in LOOKS}


def refiner_of(codec: PatchCodec) -> EdgeRefiner:
    assert isinstance(codec.refiner, EdgeRefiner)
    return codec.refiner


def clip_frames(codec: PatchCodec, latent_frames: int = CLIP) -> int:
    return 1 + (latent_frames - 1) * codec.time_stride if codec.causal else latent_frames * codec.time_stride


def noised_round_trip(codec: PatchCodec, video: Tensor, level: float, rng: Random) -> Tensor:
    """As long as the video, not clamped."""
    latents = codec.encode(video)
    latents = latents + level * torch.randn(latents.shape, generator=generator(rng))
    decoded = codec.decode(latents)
    if codec.causal:  # the first latent frame holds one video frame, `time_stride` times
        first = decoded[:, : codec.time_stride].mean(1, keepdim=True)
        decoded = torch.cat([first, decoded[:, codec.time_stride :]], dim=1)
    return decoded


def noisy_psnr(codec: PatchCodec, level: float, videos: int = 12, seed: int = 99) -> float:
    rng = Random(seed)
    clips = [render(sample_scene(rng), clip_frames(codec)) for _ in range(videos)]
    return sum(psnr(clip, noised_round_trip(codec, clip, level, rng).clamp(-1, 1)) for clip in clips) / videos


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
        "refines": codec.refines,
        "causal": codec.causal,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
