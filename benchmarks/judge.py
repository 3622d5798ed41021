"""Does a video of one moving shape show what its caption says? Decided from the pixels alone.

python -m benchmarks.judge --n 32 renders captions with the bundled model and counts what is right;
--policy paper:slow with reuse, --continued: a second shot whose caption asks for another motion.
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
from flowcache.worker.renderer import SegmentRenderer
from training.shapes import COLOURS, HEADINGS, KINDS, SIZE, Scene, caption, coverage, sample_scene, world_of

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
    return overlap(chosen, ideal(kind, chosen.sum((1, 2)), centres(chosen)))


def ideal(kind: str, area: Tensor, centre: Tensor) -> Tensor:
    """Masks of the kind with the given areas [T] and centres of mass [T, 2]."""
    middle, unit = torch.full((1,), SIZE / 2), torch.full((1,), 10.0)
    sample = coverage(kind, middle, middle, unit)
    radius = unit * (area / sample.sum()).sqrt()
    offset = (centres(sample) - SIZE / 2) * (radius / unit)[:, None]
    return coverage(kind, *(centre - offset).T, radius)


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


def render_video(
    model: LoadedModel, scenes: list[Scene], seed: int, policy: dict, guidance: float | None = None
) -> list[np.ndarray]:
    """One shot per scene, each continuing the one before: uint8 [T, SIZE, SIZE, 3] each."""
    spec = model.spec
    later = spec.frames // spec.chunk_frames * spec.chunk_frames  # as many whole chunks as fit
    lengths = [spec.frames] + [later] * (len(scenes) - 1)
    shots = tuple(Shot(caption(s), n, cut=i == 0) for i, (s, n) in enumerate(zip(scenes, lengths, strict=True)))
    request = RenderRequest(
        id="judged", shots=shots, width=spec.width, height=spec.height, fps=spec.fps, seed=seed,
        guidance=spec.guidance if guidance is None else guidance, steps=spec.steps, model=spec.name, policy=policy,
        negative_prompt=spec.negative_prompt,
    )  # fmt: skip
    frames, tail = [], None
    for segment in plan(request, spec):
        renderer = SegmentRenderer(model, request, segment, tail)
        frames += [chunk.frames for chunk in renderer.chunks()]
        tail = renderer.tail()
    return np.split(np.concatenate(frames), np.cumsum(lengths)[:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of captions and noise")
    parser.add_argument("--model", default="tiny-skyreels")
    parser.add_argument("--policy", default="off", help="off, or paper:PRESET")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--continued", action="store_true", help="judge a second shot with another motion")
    parser.add_argument("--sheet", help="PNG for a row of frames of each video")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, rng = load_model(arguments.model), Random(arguments.seed)
    world = world_of(model.spec.vocabulary)
    policy = dict(zip(("name", "preset"), arguments.policy.split(":"), strict=False))
    pairs, rows, began = [], [], time.monotonic()
    for number in range(arguments.n):
        scenes = [sample_scene(rng, world=world)]
        if arguments.continued:
            scenes.append(replace(scenes[0], motion=rng.choice([m for m in world.motions if m != scenes[0].motion])))
        windows = render_video(model, scenes, arguments.seed * 1000 + number, policy, arguments.guidance)
        pairs.append((verdict_of(scenes[-1]), judge(windows[-1])))
        shown = np.concatenate(windows)
        chosen = shown[np.linspace(0, len(shown) - 1, 16).round().astype(int)]
        rows.append(chosen.swapaxes(0, 1).reshape(SIZE, -1, 3))
        if pairs[-1][0] != pairs[-1][1]:
            print(f"{number}: {' / '.join(map(caption, scenes))} -> {pairs[-1][1]}", flush=True)
    if arguments.sheet:
        Image.fromarray(np.concatenate(rows)).save(arguments.sheet)
    print(json.dumps({"of": arguments.n, **count(pairs), "seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
