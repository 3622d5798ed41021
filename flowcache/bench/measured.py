"""What the row of one walk says of its video: how far it is from others, and how it changes from begin to end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowcache.bench.judge import judge, verdict_of
from flowcache.bench.names import CONVERGED, Entry
from flowcache.bench.pictures import psnr, ssim
from flowcache.bench.prompts import Drawn
from flowcache.bench.shapes import Scene
from flowcache.bench.table import Row
from flowcache.bench.vdp import Metric
from flowcache.bench.walking import Walked
from flowcache.records import ModelSpec


@dataclass(frozen=True)
class Judged:
    """A walk's video beside others. frames: uint8 [T, H, W, 3]; targets: those of other walks with the same noise."""

    entry: Entry
    frames: np.ndarray
    targets: Mapping[Entry, np.ndarray]

    @property
    def exact(self) -> np.ndarray | None:
        """The reference's frames; None where these are its own."""
        return None if self.entry == self.entry.reference else self.targets[self.entry.reference]

    def target(self, named: str) -> np.ndarray | None:
        """Of SSIM and ColorVideoVDP; K/V are compared with all of them, whatever the run's target."""
        if self.entry.keeps:
            return self.exact
        return None if self.entry.policy == named else self.targets[Entry(named)]


def row(
    spec: ModelSpec, prompt: Drawn, walked: Walked, video: Judged, off_forwards: int, target: str, metric: Metric | None
) -> Row:
    """off_forwards: of the reference; metric: ColorVideoVDP, None: there is none."""
    entry, frames, exact, against = video.entry, video.frames, video.exact, video.target(target)
    far = None if entry.keeps else video.targets.get(CONVERGED)
    return Row(
        model=spec.name, prompt=prompt.text, seed=prompt.seed, policy=entry.policy, setting=entry.setting,
        chunk_forwards=walked.forwards, off_forwards=off_forwards, flops=walked.flops, seconds=walked.seconds,
        kv_bytes=walked.kv_bytes,
        psnr=None if exact is None else psnr(frames, exact),
        ssim=None if against is None else ssim(frames, against),
        cvvdp=None if against is None or metric is None else metric(frames, against, spec.fps),
        psnr_converged=None if far is None else psnr(frames, far),
        caption_right=_right(frames, prompt.scene),
        chunks=walked.latents.shape[1] // spec.chunk,
        **(drift(frames, exact, prompt.scene) if entry.keeps else {}),
    )  # fmt: skip


def drift(frames: np.ndarray, exact: np.ndarray | None, scene: Scene | None) -> dict[str, Any]:
    """The row's columns on the first and the last quarter."""
    quarter = max(len(frames) // 4, 1)
    first, last = slice(0, quarter), slice(len(frames) - quarter, None)
    colours = [frames[part].mean((0, 1, 2)) for part in (first, last)]
    return {
        "psnr_first": None if exact is None else psnr(frames[first], exact[first]),
        "psnr_last": None if exact is None else psnr(frames[last], exact[last]),
        "colour_drift": float(np.linalg.norm(colours[1] - colours[0])),
        "caption_first": _right(frames[first], scene),
        "caption_last": _right(frames[last], scene),
    }


def _right(frames: np.ndarray, scene: Scene | None) -> bool | None:
    return None if scene is None else judge(frames) == verdict_of(scene)
