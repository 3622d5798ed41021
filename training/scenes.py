"""Which scenes a stage of a plan shows, and captions that are wrong in one word."""

from dataclasses import dataclass, field, replace
from random import Random

import torch

from flowcache.bench.shapes import MOTIONS, SIZE, Scene, World, caption, sample_scene, track


@dataclass(frozen=True)
class Mix:
    """weights: how often scenes with these words are kept, against 1. room: as `Plan.room` says."""

    world: World
    weights: dict[str, float] = field(default_factory=dict)
    room: float = 1.0

    def scene(self, rng: Random, continued: bool = False) -> Scene:
        """A scene as its video begins; continued: as `sample_scene` has it."""
        while True:
            scene = sample_scene(rng, continued, self.world)
            if rng.random() < self.weights.get(scene.kind, 1) * self.weights.get(scene.motion, 1):
                break
        middle = SIZE / 2
        x, y = (middle + self.room * (place - middle) for place in (scene.x, scene.y))
        return replace(scene, x=x, y=y)

    def turned(self, scene: Scene, frames: int, rng: Random) -> Scene:
        """The scene as it is after so many frames, when another motion begins."""
        x, y, radius = (float(values[0]) for values in track(scene, scene.motion, torch.tensor([float(frames)])))
        motion = rng.choice([motion for motion in self.world.motions if motion != scene.motion] or [scene.motion])
        return replace(scene, motion=motion, before=scene.motion, x=x % SIZE, y=y % SIZE, radius=radius)


def swapped(scene: Scene, world: World, rng: Random) -> dict[str, str]:
    """The right caption, and ones with another kind and with another motion of the world."""

    def other(names: tuple[str, ...], own: str) -> str:
        return rng.choice([name for name in names if name != own])

    right = caption(scene)
    return {
        "right": right,
        "kind": right.replace(scene.kind, other(world.kinds, scene.kind)),
        "motion": right.replace(MOTIONS[scene.motion][0], MOTIONS[other(world.motions, scene.motion)][0]),
    }
