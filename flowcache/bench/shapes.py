"""Captioned videos of one moving shape: the world that the tiny models are shown; each draws a part of it.

Every motion can go on for ever from any of its moments, since long videos are continued window by
window with nine frames of memory: shapes wrap around at the borders, bounces and circles repeat,
growing and shrinking end in holding still.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

SIZE = 64  # pixels per side
FRAMES = 57  # 1 + 14 * 4: a window of 15 latent frames
CHANGE = 9  # video frames of a continuation's prefix (3 latent frames)

COLOURS = {
    "red": (220, 38, 38),
    "green": (34, 150, 60),
    "blue": (30, 80, 220),
    "yellow": (245, 222, 50),
    "purple": (155, 45, 175),
    "orange": (245, 135, 25),
    "white": (246, 246, 246),
    "black": (22, 22, 24),
}
KINDS = ("circle", "square", "triangle", "star")
MOTIONS = {  # each with its two wordings
    "left": ("moving left", "moves left"),
    "right": ("moving right", "moves right"),
    "up": ("moving up", "moves up"),
    "down": ("moving down", "moves down"),
    "bouncing": ("bouncing", "bounces"),
    "circling": ("circling", "circles around"),
    "growing": ("growing", "grows"),
    "shrinking": ("shrinking", "shrinks"),
    "still": ("staying still", "stays still"),
}
SPEED = 2.0  # pixels per frame: one cell of latents per latent frame
HEADINGS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SMALLEST, LARGEST = 6.5, 18.0  # radii between which shapes grow and shrink, in pixels
GROWTH = 0.3  # pixels of radius per frame
BOUNCE_PERIOD, CIRCLE_PERIOD = 20, 30  # frames
GRADIENT = 16  # the background is so much lighter at the top and darker at the bottom (of 255)


@dataclass(frozen=True)
class World:
    """What scenes are drawn from."""

    kinds: tuple[str, ...] = KINDS
    motions: tuple[str, ...] = tuple(MOTIONS)


WORLD = World()


@dataclass(frozen=True)
class Scene:
    """What a caption says, and the shape's state at the moment when its motion begins.

    `before`: the motion up to that moment where it differs; the caption leaves it out.
    """

    kind: str
    colour: str
    background: str
    motion: str
    x: float
    y: float
    radius: float
    speed: float  # pixels per frame
    falling: bool = True
    before: str | None = None


def sample_scene(rng: Random, continued: bool = False, world: World = WORLD) -> Scene:
    """A random scene. `continued`: its first CHANGE frames are a continuation's prefix, so it may be
    anywhere on its way by then, and often it moved differently before.
    """
    colour, background = rng.sample(list(COLOURS), 2)
    kind, motion = rng.choice(world.kinds), rng.choice(world.motions)
    falling = rng.random() < 0.7
    before = rng.choice(world.motions) if continued and rng.random() < 0.6 else None
    resized = motion in ("growing", "shrinking")
    margin = 20 if resized else 16
    x, y = rng.uniform(margin, SIZE - margin), rng.uniform(margin, SIZE - margin)
    radius = rng.uniform(9 if continued else 11, 15)
    if continued:
        if rng.random() < 0.5:
            radius = min(max(rng.uniform(SMALLEST - 2, LARGEST + 2), SMALLEST), LARGEST)
        if rng.random() < 0.5:
            x, y = rng.uniform(0, SIZE), rng.uniform(0, SIZE)
    elif resized:
        radius = rng.uniform(*((SMALLEST, 9.0) if motion == "growing" else (14.0, LARGEST)))
    elif motion in HEADINGS and rng.random() < 0.5:
        x, y = (rng.uniform(0, SIZE), y) if HEADINGS[motion][0] else (x, rng.uniform(0, SIZE))
    return Scene(kind, colour, background, motion, x, y, radius, SPEED, falling, before)


def caption(scene: Scene, rng: Random | None = None) -> str:
    """The scene in words; with `rng` in one of several wordings."""
    choose = rng.choice if rng else lambda options: options[0]
    article = "an" if scene.colour == "orange" else "a"
    ground = "an" if scene.background == "orange" else "a"
    motion = choose(MOTIONS[scene.motion])
    place = choose((f"on {ground} {scene.background} background", f"on {scene.background}"))
    return f"{choose((article, article, 'the'))} {scene.colour} {scene.kind} {motion} {place}"


def vocabulary(world: World = WORLD) -> list[str]:
    """Every word that a caption can hold, sorted."""
    words = {"a", "an", "the", "on", "background", *COLOURS, *world.kinds}
    return sorted(words.union(*(wording.split() for motion in world.motions for wording in MOTIONS[motion])))


def world_of(words: Collection[str]) -> World:
    """What can be said with these words."""
    motions = (motion for motion, both in MOTIONS.items() if set(" ".join(both).split()) <= set(words))
    return World(tuple(kind for kind in KINDS if kind in words), tuple(motions))


def track(scene: Scene, motion: str, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and radius at times t (frames); at t = 0 the scene's own state."""
    x, y, radius = (torch.full_like(t, value) for value in (scene.x, scene.y, scene.radius))
    if motion in HEADINGS:
        dx, dy = HEADINGS[motion]
        return x + dx * scene.speed * t, y + dy * scene.speed * t, radius
    if motion == "bouncing":
        floor = max(SIZE - 3 - scene.radius, scene.y)
        height = floor - scene.y
        top = max(height, 28.0)
        start = math.asin(height / top)
        start = math.pi - start if scene.falling else start
        return x, floor - top * (start + math.pi * t / BOUNCE_PERIOD).sin().abs(), radius
    if motion == "circling":
        dx, dy = scene.x - SIZE / 2, scene.y - SIZE / 2
        angle = math.atan2(dy, dx)
        orbit = min(max(math.hypot(dx, dy), 12.0), 17.0)
        turned = angle + 2 * math.pi * t / CIRCLE_PERIOD
        return x + orbit * (turned.cos() - math.cos(angle)), y + orbit * (turned.sin() - math.sin(angle)), radius
    if motion in ("growing", "shrinking"):
        sign = 1 if motion == "growing" else -1
        return x, y, (radius + sign * GROWTH * t).clamp(min(SMALLEST, scene.radius), max(LARGEST, scene.radius))
    return x, y, radius


def coverage(kind: str, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """How much of each pixel the shape covers, 0..1: [T, SIZE, SIZE] for centres and radii [T]; wraps around."""
    pixels = torch.arange(SIZE) + 0.5
    dx = ((pixels - x[:, None] + SIZE / 2) % SIZE - SIZE / 2)[:, None, :]
    dy = ((pixels - y[:, None] + SIZE / 2) % SIZE - SIZE / 2)[:, :, None]
    return (0.5 - distance(kind, dx, dy, radius[:, None, None])).clamp(0, 1)


def distance(kind: str, dx: Tensor, dy: Tensor, radius: Tensor) -> Tensor:
    """Signed distance to the shape's edge in pixels, negative inside (exact near edges, not beyond corners)."""
    if kind == "circle":
        return (dx.square() + dy.square()).sqrt() - radius
    if kind == "square":
        return torch.maximum(dx.abs(), dy.abs()) - 0.9 * radius
    if kind == "triangle":
        sides = (2.0 * dx.abs() - dy - 1.15 * radius) / math.hypot(2.0, 1.0)
        return torch.maximum(sides, dy - 0.95 * radius)
    outer, inner = 1.4 * radius, 0.62 * radius
    angle = torch.atan2(dx, -dy)
    fold = math.pi / 5
    angle = ((angle + fold) % (2 * fold) - fold).abs()  # from the nearest tip, 0..36 degrees
    rho = (dx.square() + dy.square()).sqrt()
    along, across = rho * angle.cos(), rho * angle.sin()
    edge_x, edge_y = inner * math.cos(fold) - outer, inner * math.sin(fold)
    return ((along - outer) * edge_y - across * edge_x) / (edge_x.square() + edge_y.square()).sqrt()


def render(scene: Scene, frames: int = FRAMES, change: int = CHANGE) -> Tensor:
    """The scene as pixels [3, frames, SIZE, SIZE] in -1..1; where it has a motion `before`, that ends at `change`."""
    t = torch.arange(frames, dtype=torch.float32)
    path = track(scene, scene.motion, t - change if scene.before else t)
    if scene.before:
        past = track(scene, scene.before, t[:change] - change)
        path = tuple(torch.cat([old, new[change:]]) for old, new in zip(past, path, strict=True))
    mask = coverage(scene.kind, *path)
    colour, ground = torch.tensor(COLOURS[scene.colour])[:, None, None, None] / 127.5 - 1, render_ground(scene)
    return ground + mask * (colour - ground)


def render_ground(scene: Scene) -> Tensor:
    """The background alone [3, 1, SIZE, SIZE]."""
    shade = GRADIENT * torch.linspace(1, -1, SIZE)[None, None, :, None]
    colour = torch.tensor(COLOURS[scene.background])[:, None, None, None]
    return (colour + shade).clamp(0, 255).expand(3, 1, SIZE, SIZE) / 127.5 - 1
