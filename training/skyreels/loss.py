"""The training loss of `tiny-skyreels`: flow matching on windows whose first frame stands alone."""

from random import Random

import torch
from torch import Generator, Tensor

from flowcache.families.codecs import PatchCodec
from training.shapes import caption, render, sample_scene
from training.skyreels.model import CHUNK, FPS, TEXT_LEN, WORLD, Tiny
from training.skyreels.noise import sample_sigmas
from training.text import encode_batch


def loss_of_step(
    model: Tiny, tokenizer, codec: PatchCodec, weights: Tensor, batch: int, rng: Random, generator: Generator
) -> Tensor:
    """The loss of a freshly drawn batch; weights: of the channels."""
    latents, captions, prefix = make_batch(batch, rng, codec)
    return loss_of(model, tokenizer, latents, captions, prefix, weights, generator)


def make_batch(batch: int, rng: Random, codec: PatchCodec) -> tuple[Tensor, list[str], Tensor]:
    """Latents [B, C, F, h, w], captions, and which rows are continuations [B]."""
    chunks = rng.choice((5, 5, 4, 3, 2, 1))  # the first one is the hardest, and short windows cost less
    frames = 1 + (chunks * CHUNK - 1) * codec.time_stride
    prefix = [chunks > 1 and rng.random() < 0.35 for _ in range(batch)]
    scenes = [sample_scene(rng, continued, WORLD) for continued in prefix]
    captions = ["" if rng.random() < 0.1 else caption(scene, rng) for scene in scenes]
    return torch.stack([codec.encode(render(scene, frames)) for scene in scenes]), captions, torch.tensor(prefix)


def loss_of(
    model: Tiny,
    tokenizer,
    latents: Tensor,
    captions: list[str],
    prefix: Tensor,
    weights: Tensor,
    generator: Generator,
) -> Tensor:
    """Squared error of the velocity (noise - clean), weighted by channel, over the frames that are to be learned."""
    sigma, learned = sample_sigmas(prefix, latents.shape[2], CHUNK, generator)
    noise = torch.randn(latents.shape, generator=generator)
    s = sigma[:, None, :, None, None]
    noisy = (1 - s) * latents + s * noise
    text, _ = encode_batch(model.text_encoder, tokenizer, captions, TEXT_LEN)
    velocity = model.transformer(noisy, sigma * 1000, text, FPS, CHUNK).float()
    error = ((velocity - (noise - latents)).square() * weights[:, None, None, None]).mean((1, 3, 4))
    return error[learned].mean()
