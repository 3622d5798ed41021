"""Does a video of one moving shape show what its caption says? Decided from the pixels alone.

python -m benchmarks.judge --n 32 renders captions with the bundled model and counts what is right;
--policy paper:slow with reuse, --image: from the scene's first picture, --continued 1: a second shot of the
caption, --turned: one whose caption asks for another motion. `jod` is of benchmarks.fidelity, where it is installed.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowcache.families.registry import load_model
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel
from flowcache.records import RenderRequest, Shot
from flowcache.worker.renderer import SegmentRenderer, encode_pixels
from training.shapes import (
    COLOURS,
    HEADINGS,
    KINDS,
    SIZE,
    Scene,
    World,
    caption,
    coverage,
    render,
    sample_scene,
    world_of,
)

CONTRAST = 60  # RGB distance from the background from which a pixel is taken for the shape's
MOVING = 0.4  # pixels per frame
SWAYING = 3.5  # standard deviation of a coordinate, in pixels
GROWN = 1.15  # ratio of areas


@dataclass(frozen=True)
class Verdict:
    """What the pixels show; the attributes of a caption."""

    background: str
    colour: str
    kind: str
    motion: str


def verdict_of(scene: Scene) -> Verdict:
    """What the scene's caption asks for."""
    return Verdict(scene.background, scene.colour, scene.kind, scene.motion)


def judge(video: np.ndarray) -> Verdict | None:
    """A video, uint8 [T, SIZE, SIZE, 3]; None where it shows no shape at all."""
    found = shape_of(video)
    if found is None:
        return None
    background, colour, mask = found
    return Verdict(background, colour, judge_kind(mask), judge_motion(mask))


def shape_of(video: np.ndarray) -> tuple[str, str, Tensor] | None:
    """Colours of background and shape, and the shape's mask [T, SIZE, SIZE]; None where there is none."""
    pixels = torch.from_numpy(video).float()
    labels = nearest_colour(pixels)
    background = most_common(labels)
    names = list(COLOURS)
    ground = row_colours(pixels, labels == background)
    apart = (pixels - ground).norm(dim=-1) > CONTRAST
    candidates = labels[apart & (labels != background)]
    if len(candidates) < 10 * len(video):
        return None
    colour = most_common(candidates)
    return names[background], names[colour], shape_mask(pixels, ground, torch.tensor(COLOURS[names[colour]]).float())


def nearest_colour(pixels: Tensor) -> Tensor:
    """Index of the nearest named colour, for [..., 3] in 0..255."""
    palette = torch.tensor(list(COLOURS.values())).float()
    return torch.cdist(pixels.flatten(0, -2), palette).argmin(1).view(pixels.shape[:-1])


def most_common(labels: Tensor) -> int:
    return int(labels.flatten().bincount().argmax())


def row_colours(pixels: Tensor, chosen: Tensor) -> Tensor:
    """Mean colour of each row's chosen pixels over the whole video: the background's shade [SIZE, 1, 3]."""
    weight = chosen[..., None].float()
    total, count = (pixels * weight).sum((0, 2)), weight.sum((0, 2))
    mean = total.sum(0) / count.sum()
    return torch.where(count > 0, total / count.clamp(min=1), mean)[:, None]


def shape_mask(pixels: Tensor, ground: Tensor, colour: Tensor) -> Tensor:
    """How far each pixel is from background to shape colour, 0..1: [T, SIZE, SIZE], faint traces cut off."""
    axis = colour - ground
    share = ((pixels - ground) * axis).sum(-1) / axis.square().sum(-1)
    return torch.where(share > 0.3, share, 0).clamp(0, 1)


def centres(mask: Tensor) -> Tensor:
    """Centre of mass on the torus, x and y in pixels: [T, 2]."""
    angle = 2 * math.pi * (torch.arange(SIZE) + 0.5) / SIZE
    wave = torch.polar(torch.ones(SIZE), angle)
    profiles = torch.stack([mask.sum(1), mask.sum(2)], dim=1)  # over rows: along x; over columns: along y
    return (profiles * wave).sum(-1).angle() * SIZE / (2 * math.pi) % SIZE


def unwrapped(path: Tensor) -> Tensor:
    """The path without its jumps at the borders: [T, 2]."""
    steps = (path.diff(dim=0) + SIZE / 2) % SIZE - SIZE / 2
    return torch.cat([torch.zeros(1, 2), steps.cumsum(0)])


def judge_motion(mask: Tensor) -> str:
    """From the centre's path and the area, frames without a shape left out."""
    area = mask.sum((1, 2))
    shown = area > 10
    path, area = unwrapped(centres(mask[shown])), area[shown]
    if len(area) < 8:
        return "still"
    velocity = path[-1] / (len(path) - 1)
    axis = int(velocity.abs().argmax())
    quarter = len(area) // 4
    ratio = float(area[-quarter:].mean() / area[:quarter].mean())
    sway_x, sway_y = (path - torch.linspace(0, 1, len(path))[:, None] * path[-1]).std(0).tolist()
    if velocity[axis].abs() > MOVING and max(sway_x, sway_y) < 2 * SWAYING:
        return next(n for n, h in HEADINGS.items() if h[axis] == (1 if velocity[axis] > 0 else -1))
    if sway_x > SWAYING and sway_y > SWAYING:
        return "circling"
    if sway_y > SWAYING:
        return "bouncing"
    if ratio > GROWN or ratio < 1 / GROWN:
        return "growing" if ratio > 1 else "shrinking"
    return "still"


def judge_kind(mask: Tensor) -> str:
    """The kind whose ideal mask of the same area and centre overlaps best, over some of the frames."""
    scores = {kind: kind_overlap(mask, kind) for kind in KINDS}
    return max(scores, key=scores.__getitem__)


def kind_overlap(mask: Tensor, kind: str, looks: int = 12) -> float:
    """Of the mask with the ideal one of a kind."""
    chosen = mask[torch.linspace(0, len(mask) - 1, looks).round().long()]
    chosen = chosen[chosen.sum((1, 2)) > 10]
    return overlap(chosen, coverage(kind, *place(kind, chosen)))


def place(kind: str, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and radius [T] of shapes of the kind that have the areas and centres of mass of the masks."""
    middle, unit = torch.full((1,), SIZE / 2), torch.full((1,), 10.0)
    sample = coverage(kind, middle, middle, unit)
    radius = unit * (mask.sum((1, 2)) / sample.sum()).sqrt()
    offset = (centres(sample) - SIZE / 2) * (radius / unit)[:, None]
    x, y = (centres(mask) - offset).T
    return x, y, radius


def overlap(a: Tensor, b: Tensor) -> float:
    """Intersection over union of soft masks."""
    return float(torch.minimum(a, b).sum() / torch.maximum(a, b).sum())


def count(pairs: list[tuple[Verdict, Verdict | None]]) -> dict[str, int]:
    """How many of (asked, seen) agree in each attribute, and in all of them."""
    right = dict.fromkeys(("background", "colour", "kind", "motion", "all"), 0)
    for asked, seen in pairs:
        for name, value in asdict(asked).items():
            right[name] += seen is not None and asdict(seen)[name] == value
        right["all"] += asked == seen
    return right


def pixels(video: Tensor) -> np.ndarray:
    """[3, T, H, W] in -1..1 -> uint8 [T, H, W, 3]."""
    return ((video.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()


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
    frames, tail = [], encode_pixels(model, pixels(render(scenes[0], 1))) if pictured else None
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
    from benchmarks.fidelity import color_video_vdp, true_video  # which judges by what stands here

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
