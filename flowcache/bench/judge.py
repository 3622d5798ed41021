"""Does a video of one moving shape show what its caption says? Decided from the pixels alone.

It knows the world of `shapes`, which the bundled models draw, and nothing of how they were trained.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from flowcache.bench.shapes import COLOURS, HEADINGS, KINDS, SIZE, Scene, coverage

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
    right: dict[str, int] = dict.fromkeys(("background", "colour", "kind", "motion", "all"), 0)
    for asked, seen in pairs:
        for name, value in asdict(asked).items():
            right[name] += seen is not None and asdict(seen)[name] == value
        right["all"] += asked == seen
    return right
