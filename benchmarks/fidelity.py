"""The asked scene as it ought to be shown, for comparing a video with it by ColorVideoVDP (`flowcache.bench.vdp`)."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from flowcache.bench.judge import overlap, place, shape_of
from flowcache.bench.shapes import Scene, coverage, render, track
from flowcache.worker.renderer import to_uint8


def true_video(asked: Scene, video: np.ndarray) -> np.ndarray | None:
    """The asked scene from where and as large as the shape is in the first frame: uint8, as long; None without a shape.

    The caption does not say these; everything else is as it ought to be.
    """
    found = shape_of(video)
    if found is None or found[2][0].sum() < 10:
        return None
    mask = found[2]
    x, y, radius = (float(one) for one in place(asked.kind, mask[:1]))
    scenes = [replace(asked, x=x, y=y, radius=radius, falling=falling, before=None) for falling in (True, False)]
    return to_uint8(render(max(scenes, key=lambda scene: likeness(scene, mask)), len(video)))


def likeness(scene: Scene, mask: Tensor) -> float:
    path = track(scene, scene.motion, torch.arange(len(mask), dtype=torch.float32))
    return overlap(mask, coverage(scene.kind, *path))
