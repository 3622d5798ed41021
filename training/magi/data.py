"""Training rows of `tiny-magi`: windows of chunks with a caption for each chunk."""

from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Generator, Tensor

from flowcache.bench.shapes import Scene, caption, render
from flowcache.families.codecs import PatchCodec
from flowcache.families.magi.captions import LONGEST
from training.magi.noise import Rows, Shares, sample_levels, sample_rows
from training.scenes import Mix
from training.task import Length, generator

CHUNK = 6  # latent frames
LENGTHS = {"image": Length(1, 1), "half": Length(1, CHUNK // 2)} | {str(n): Length(n, CHUNK) for n in range(1, 6)}
LATEST = 4  # chunks of a video before a window that is a later part of it


@dataclass(frozen=True)
class Windows:
    """latents [B, C, N * size, h, w]; shown: the same with what is `given` as an image's latents are; noise alike.

    levels, weights [B, N]: of each chunk. captions: of each chunk, row by row; remaining: chunks of its video after
    each chunk, alike.
    """

    latents: Tensor
    shown: Tensor
    noise: Tensor
    levels: Tensor
    weights: Tensor
    rows: Rows
    captions: list[str]
    remaining: list[int]


@dataclass(frozen=True)
class Part:
    """What a window shows: the scene from the chunk `begin` of its video on; until `change` it moves as before."""

    scene: Scene
    begin: int = 0
    change: int = 0


def draw(length: Length, mix: Mix, shares: Shares, codec: PatchCodec, rng: Random) -> Windows:
    """One row."""
    numbers = generator(rng)
    rows = sample_rows(1, length.chunks, length.size, numbers, shares)
    levels, weights = sample_levels(rows, length.chunks, numbers)
    clean, given = bool(rows.clean), int(rows.given)
    part = choose(length, clean, mix, shares, codec, rng)
    latents, video = encoded(part, length, codec)
    shown, start = latents.clone(), length.size if clean else 0
    if given == 1 and rng.random() < 0.7:  # a still picture, from which the shape moves on
        frame = (start + 1) * codec.time_stride - 1
        shown[0, :, start] = codec.encode(video[:, frame : frame + 1])[:, 0]
    return Windows(
        latents, shown, torch.randn(latents.shape, generator=numbers), levels, weights, rows,
        chunk_captions(part, length.chunks, rng), countdown(length.chunks, rng.randrange(LONGEST + 1)),
    )  # fmt: skip


def choose(length: Length, clean: bool, mix: Mix, shares: Shares, codec: PatchCodec, rng: Random) -> Part:
    """How the row's video begins, and where the window lies in it."""
    if length.chunks > 1 and rng.random() < shares.changed:
        change = rng.randrange(1, length.chunks)
        return Part(mix.turned(mix.scene(rng), change * length.size * codec.time_stride, rng), change=change)
    if clean and rng.random() < shares.later:
        return Part(mix.scene(rng), begin=rng.randrange(1, LATEST + 1))
    if clean:  # anywhere on its way, and in a third of them it moved otherwise
        scene = mix.scene(rng, continued=True)
        return Part(scene if rng.random() < 0.55 else replace(scene, before=None), change=1)
    return Part(replace(mix.scene(rng, rng.random() < shares.anywhere), before=None))


def encoded(part: Part, length: Length, codec: PatchCodec) -> tuple[Tensor, Tensor]:
    """Latents [1, C, F, h, w] and video [3, T, H, W] of the window."""
    per = length.size * codec.time_stride
    video = render(part.scene, (part.begin + length.chunks) * per, part.change * per)[:, part.begin * per :]
    return codec.encode(video)[None], video


def noised(length: Length, scene: Scene, level: float, codec: PatchCodec, numbers: Generator) -> Windows:
    """One row of a video's beginning with all frames at one noise level (1 - t), nothing given."""
    latents, _ = encoded(Part(scene), length, codec)
    no = torch.zeros(1, dtype=torch.bool)
    levels = torch.full((1, length.chunks), 1 - level)
    return Windows(
        latents, latents, torch.randn(latents.shape, generator=numbers), levels, torch.ones_like(levels),
        Rows(no, no, no, no.long()), [caption(scene)] * length.chunks, countdown(length.chunks, 0),
    )  # fmt: skip


def countdown(chunks: int, after: int) -> list[int]:
    return [after + chunk for chunk in reversed(range(chunks))]


def together(windows: list[Windows]) -> Windows:
    """All rows of one length as a batch."""
    parts = zip(*((w.latents, w.shown, w.noise, w.levels, w.weights) for w in windows), strict=True)
    kinds = zip(*((w.rows.clean, w.rows.dropped, w.rows.alone, w.rows.given) for w in windows), strict=True)
    captions, remaining = ([one for w in windows for one in getattr(w, name)] for name in ("captions", "remaining"))
    return Windows(*map(torch.cat, parts), Rows(*map(torch.cat, kinds)), captions, remaining)


def chunk_captions(part: Part, chunks: int, rng: Random) -> list[str]:
    """The scene's caption for the chunks from `change` on, before that one of its motion till then."""
    scene, after = part.scene, caption(part.scene, rng)
    before = caption(replace(scene, motion=scene.before), rng) if scene.before else after
    return [before if chunk < part.change else after for chunk in range(chunks)]
