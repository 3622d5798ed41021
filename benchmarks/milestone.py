"""What a run in training draws by now: python -m benchmarks.milestone --run runs/skyreels/step-01200.pt

Kinds right of single images, kinds and motions of videos as long as the run is trained on by then, decided by
benchmarks.judge; to be compared with the milestones in training/README.md.
"""

import argparse
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowcache.bench.judge import count, judge, kind_overlap, shape_of, verdict_of
from flowcache.bench.shapes import Scene, caption, sample_scene
from flowcache.families.codecs import load_codec
from flowcache.models.base import Codec
from training.sample import Trained, codec_of, contact_sheet, decoded, load_average


def longest(trained: Trained) -> str:
    """The length that the run's stage trains most frames of at once."""
    stage = trained.plan.stage(min(trained.step, trained.plan.steps) - 1)
    return max(stage.batch, key=lambda name: trained.family.lengths[name].frames)


def drawn(
    trained: Trained, codec: Codec, scenes: list[Scene], length: str, arguments: argparse.Namespace
) -> list[Tensor]:
    """Videos [3, T, H, W] in -1..1."""
    latents = trained.family.preview(
        trained.model, trained.tokenizer, [caption(scene) for scene in scenes], trained.family.lengths[length],
        steps=arguments.steps, guidance=arguments.guidance, seed=arguments.seed,
    )  # fmt: skip
    return decoded(codec, latents)


def judged(scenes: list[Scene], videos: list[Tensor]) -> dict[str, Any]:
    """How many are right, and how well shapes overlap with the asked kind's ideal one."""
    frames = [((v.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy() for v in videos]
    right = count([(verdict_of(scene), judge(video)) for scene, video in zip(scenes, frames, strict=True)])
    shapes = [shape_of(video) for video in frames]
    overlaps = [
        kind_overlap(shape[2], scene.kind) if shape else 0.0 for scene, shape in zip(scenes, shapes, strict=True)
    ]
    return {"of": len(scenes), **right, "iou": round(float(np.mean(overlaps)), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run, or one of its step-*.pt")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--length", help="of the videos, as the plan names them; default: the longest of its stage")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=9917)
    parser.add_argument("--sheet", help="PNG for a row of frames of each video")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained, codec = load_average(arguments.run), load_codec(codec_of(arguments.run))
    rng, length = Random(arguments.seed), arguments.length or longest(trained)
    found: dict[str, Any] = {"step": trained.step, "minutes": round(trained.minutes, 1), "length": length}
    sheet: list[Tensor] = []
    for what, number, size in (("images", arguments.images, "image"), ("videos", arguments.videos, length)):
        scenes = [sample_scene(rng, world=trained.plan.world) for _ in range(number)]
        videos = drawn(trained, codec, scenes, size, arguments) if scenes else []
        sheet += videos
        found[what] = judged(scenes, videos) if scenes else None
    if arguments.sheet:
        Image.fromarray(np.asarray(contact_sheet(sheet))).save(arguments.sheet)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
