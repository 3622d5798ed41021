"""Training batches of `tiny-magi`: windows of whole chunks with a caption for each chunk."""

from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from flowcache.families.codecs import PatchCodec
from flowcache.families.magi.captions import LONGEST
from training.magi.noise import Rows
from training.shapes import Scene, World, caption, render, sample_scene

CHUNK = 6  # latent frames
WORLD = World(
    kinds=("circle", "square", "triangle"), motions=("left", "right", "up", "down", "growing", "shrinking", "still")
)


@dataclass(frozen=True)
class Windows:
    """latents [B, C, N * CHUNK, h, w]; shown: the same with what is `given` as an image's latents are.

    captions: of each chunk, row by row; remaining: chunks of its video after each chunk, alike.
    """

    latents: Tensor
    shown: Tensor
    captions: list[str]
    remaining: list[int]


def draw_windows(rows: Rows, chunks: int, rng: Random, codec: PatchCodec) -> Windows:
    """A scene for each row. A third of the windows of several chunks changes motion, and caption, at a chunk."""
    latents, shown, captions, remaining = [], [], [], []
    for clean, given in zip(rows.clean.tolist(), rows.given.tolist(), strict=True):
        scene = sample_scene(rng, clean or rng.random() < 0.2, WORLD)
        change = 1 if clean else rng.randrange(1, chunks) if chunks > 1 else 0
        if not change or rng.random() < 0.35:
            scene = replace(scene, before=None)
        video = render(scene, chunks * CHUNK * codec.time_stride, change * CHUNK * codec.time_stride)
        latents.append(codec.encode(video))
        shown.append(latents[-1].clone())
        start = CHUNK if clean else 0
        if given == 1 and rng.random() < 0.7:  # a still picture, from which the shape moves on
            frame = (start + 1) * codec.time_stride - 1
            shown[-1][:, start] = codec.encode(video[:, frame : frame + 1])[:, 0]
        captions += chunk_captions(scene, chunks, change, rng)
        after = rng.randrange(LONGEST + 1)
        remaining += [after + chunk for chunk in reversed(range(chunks))]
    return Windows(torch.stack(latents), torch.stack(shown), captions, remaining)


def chunk_captions(scene: Scene, chunks: int, change: int, rng: Random) -> list[str]:
    """The scene's caption for the chunks from `change` on, before that one of its motion till then."""
    after = caption(scene, rng)
    before = caption(replace(scene, motion=scene.before), rng) if scene.before else after
    return [before if chunk < change else after for chunk in range(chunks)]
