"""How like the true scene a video looks to a person: ColorVideoVDP (Mantiuk et al., ACM TOG 43, 2024), in JOD.

10: no difference is seen; one less: three of four viewers see which of the two is the worse one. It comes with
`pip install -e .[bench]`, and a torchvision of the same build as torch.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.judge import overlap, pixels, place, shape_of
from training.shapes import Scene, coverage, render, track

DISPLAY = "standard_fhd"
Metric = Callable[[np.ndarray, np.ndarray, int], float]  # of a video and the true one, uint8 [T, H, W, 3], and fps


def color_video_vdp() -> Metric | str:
    """Or why there is none."""
    try:
        import pycvvdp
    except (ImportError, RuntimeError) as fault:  # RuntimeError: torchvision of another build than torch
        return f"no ColorVideoVDP ({str(fault).splitlines()[0]}); pip install -e .[bench]"
    metric = pycvvdp.cvvdp(display_name=DISPLAY, device=torch.device("cpu"), quiet=True)

    def jod(video: np.ndarray, true: np.ndarray, fps: int) -> float:
        return float(metric.predict(video, true, dim_order="FHWC", frames_per_second=fps)[0])

    return jod


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
    return pixels(render(max(scenes, key=lambda scene: likeness(scene, mask)), len(video)))


def likeness(scene: Scene, mask: Tensor) -> float:
    path = track(scene, scene.motion, torch.arange(len(mask), dtype=torch.float32))
    return overlap(mask, coverage(scene.kind, *path))
