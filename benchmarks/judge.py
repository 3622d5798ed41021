"""Does a video of one moving shape show what its caption says? Decided from the pixels alone.

python -m benchmarks.judge --n 32 renders captions with the bundled model and counts what is right;
--policy paper:slow with reuse, --image: from the scene's first picture, --continued 1: a second shot of the
caption, --turned: one whose caption asks for another motion. `jod`: likeness to the asked scene as it ought to be
(benchmarks.fidelity), where ColorVideoVDP is installed.
"""

import argparse
import json
import time
from dataclasses import replace
from random import Random

import numpy as np
import torch
from PIL import Image

from benchmarks.fidelity import true_video
from flowcache.bench.judge import count, judge, verdict_of
from flowcache.bench.shapes import SIZE, Scene, World, caption, render, sample_scene, world_of
from flowcache.bench.vdp import color_video_vdp
from flowcache.families.registry import load_model
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel
from flowcache.records import RenderRequest, Shot
from flowcache.worker.renderer import SegmentRenderer, encode_pixels, to_uint8


def render_video(
    model: LoadedModel,
    scenes: list[Scene],
    seed: int,
    policy: dict,
    guidance: float | None = None,
    pictured: bool = False,
) -> list[np.ndarray]:
    """One shot per scene, each continuing the one before: uint8 [T, SIZE, SIZE, 3] each.

    pictured: the first one starts from its scene's first picture.
    """
    spec = model.spec
    later = spec.frames // spec.chunk_frames * spec.chunk_frames  # as many whole chunks as fit
    lengths = [spec.frames] + [later] * (len(scenes) - 1)
    shots = tuple(Shot(caption(s), n, cut=i == 0) for i, (s, n) in enumerate(zip(scenes, lengths, strict=True)))
    request = RenderRequest(
        id="judged", shots=shots, width=spec.width, height=spec.height, fps=spec.fps, seed=seed,
        guidance=spec.guidance if guidance is None else guidance, steps=spec.steps, model=spec.name, policy=policy,
        negative_prompt=spec.negative_prompt,
    )  # fmt: skip
    frames, tail = [], encode_pixels(model, to_uint8(render(scenes[0], 1))) if pictured else None
    for segment in plan(request, spec):
        renderer = SegmentRenderer(model, request, segment, tail)
        frames += [chunk.frames for chunk in renderer.chunks()]
        tail = renderer.tail()
    return np.split(np.concatenate(frames), np.cumsum(lengths)[:-1])


def draw_sheet(videos: list[np.ndarray], to: str, fps: int, columns: int = 8) -> None:
    """Of uint8 [T, SIZE, SIZE, 3], all equally long."""
    stack = np.stack(videos)
    if to.endswith(".webp"):
        blank = np.zeros((-len(stack) % columns, *stack.shape[1:]), np.uint8)
        grid = np.concatenate([stack, blank]).reshape(-1, columns, *stack.shape[1:])  # rows, columns, T, y, x, 3
        frames = [Image.fromarray(frame) for frame in grid.transpose(2, 0, 3, 1, 4, 5).reshape(
            stack.shape[1], -1, columns * SIZE, 3)]  # fmt: skip
        frames[0].save(to, save_all=True, append_images=frames[1:], duration=1000 // fps, loop=0, quality=80)
    else:
        chosen = stack[:, np.linspace(0, stack.shape[1] - 1, 16).round().astype(int)]
        Image.fromarray(chosen.swapaxes(1, 2).reshape(-1, 16 * SIZE, 3)).save(to)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of captions and noise")
    parser.add_argument("--model", default="tiny-skyreels")
    parser.add_argument("--policy", default="off", help="off, or paper:PRESET")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--image", action="store_true", help="start from the scene's first picture")
    second = parser.add_mutually_exclusive_group()
    second.add_argument(
        "--continued", type=int, default=0, help="so many more shots of the caption, judged as one video"
    )
    second.add_argument("--turned", action="store_true", help="judge a second shot with another motion")
    parser.add_argument("--sheet", help="a PNG with a row of frames of each video, or a WebP where all move")
    return parser.parse_args()


def shots(arguments: argparse.Namespace, world: World, rng: Random) -> list[Scene]:
    """A random scene, and what follows it."""
    scene = sample_scene(rng, world=world)
    if arguments.turned:
        return [scene, replace(scene, motion=rng.choice([m for m in world.motions if m != scene.motion]))]
    return [scene] * (1 + arguments.continued)


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    model, rng, metric = load_model(arguments.model), Random(arguments.seed), color_video_vdp()
    world = world_of(model.spec.vocabulary)
    policy = dict(zip(("name", "preset"), arguments.policy.split(":"), strict=False))
    pairs, videos, jods, began = [], [], [], time.monotonic()
    for number in range(arguments.n):
        scenes, seed = shots(arguments, world, rng), arguments.seed * 1000 + number
        windows = render_video(model, scenes, seed, policy, arguments.guidance, arguments.image)
        shown = np.concatenate(windows)
        judged = windows[-1] if arguments.turned else shown
        pairs.append((verdict_of(scenes[-1]), judge(judged)))
        if callable(metric) and (true := true_video(scenes[-1], judged)) is not None:
            jods.append(metric(judged, true, model.spec.fps))
        videos.append(shown)
        if pairs[-1][0] != pairs[-1][1]:
            print(f"{number}: {' / '.join(map(caption, scenes))} -> {pairs[-1][1]}", flush=True)
    if arguments.sheet:
        draw_sheet(videos, arguments.sheet, model.spec.fps)
    jod = round(float(np.mean(jods)), 2) if jods else metric if isinstance(metric, str) else None
    print(json.dumps({"of": arguments.n, **count(pairs), "jod": jod, "seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
