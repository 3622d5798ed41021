"""The training loss of `tiny-skyreels`: flow matching on windows whose first frame stands alone."""

from dataclasses import dataclass
from random import Random

import torch
from torch import Generator, Tensor

from flowcache.bench.shapes import Scene, caption, render
from flowcache.families.codecs import PatchCodec
from training.scenes import Mix
from training.skyreels.model import CHUNK, FPS, TEXT_LEN, Tiny
from training.skyreels.noise import Shares, sample_sigmas
from training.task import Length, Loss, generator
from training.text import encode_batch

LENGTHS = {"image": Length(1, 1)} | {str(chunks): Length(chunks, CHUNK) for chunks in range(1, 6)}


@dataclass(frozen=True)
class Rows:
    """latents, noise [B, C, F, h, w]; sigma and which frames are to be learned [B, F]."""

    latents: Tensor
    noise: Tensor
    sigma: Tensor
    learned: Tensor
    captions: list[str]


def draw(length: Length, mix: Mix, shares: Shares, codec: PatchCodec, rng: Random) -> Rows:
    """One row."""
    continued = length.chunks > 1 and rng.random() < shares.continued
    scene = mix.scene(rng, continued)
    words = "" if rng.random() < shares.dropped else caption(scene, rng)
    numbers, latents = generator(rng), encoded(scene, length, codec)
    sigma, learned = sample_sigmas(torch.tensor([continued]), length.frames, length.size, numbers, shares)
    return Rows(latents, torch.randn(latents.shape, generator=numbers), sigma, learned, [words])


def noised(length: Length, scene: Scene, level: float, codec: PatchCodec, numbers: Generator) -> Rows:
    """One row with all frames at one level."""
    latents = encoded(scene, length, codec)
    sigma = torch.full((1, length.frames), level)
    return Rows(latents, torch.randn(latents.shape, generator=numbers), sigma, sigma > 0, [caption(scene)])


def encoded(scene: Scene, length: Length, codec: PatchCodec) -> Tensor:
    return codec.encode(render(scene, 1 + (length.frames - 1) * codec.time_stride))[None]


def together(rows: list[Rows]) -> Rows:
    parts = (torch.cat([getattr(row, name) for row in rows]) for name in ("latents", "noise", "sigma", "learned"))
    return Rows(*parts, captions=[words for row in rows for words in row.captions])


def loss_of(model: Tiny, tokenizer, rows: Rows) -> Loss:
    """Squared error of the velocity (noise - clean) over the frames that are to be learned, all channels alike."""
    s = rows.sigma[:, None, :, None, None]
    noisy = (1 - s) * rows.latents + s * rows.noise
    text, _ = encode_batch(model.text_encoder, tokenizer, rows.captions, TEXT_LEN)
    velocity = model.transformer(noisy, rows.sigma * 1000, text, FPS, CHUNK).float()
    error = (velocity - (rows.noise - rows.latents)).square().mean((1, 3, 4))
    return Loss(error[rows.learned].sum(), rows.learned.sum())
