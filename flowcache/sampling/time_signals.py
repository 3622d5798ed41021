"""What decisions look at where it follows from timesteps alone: made once for a window, and kept where the host is."""

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from flowcache.models.base import Grid, VideoModel

Embedding = Literal["blocks", "time"]


class TimeSignals:
    """On the CPU, so that a decision waits for no GPU. For models whose `timed_signal` is True."""

    def __init__(self, model: VideoModel, timesteps: Collection[float], fps: int, of: Embedding = "blocks"):
        """timesteps: all that may be asked for. of: what modulates the blocks, or the time embedding before it."""
        times, grid = torch.tensor(sorted(set(timesteps))), Grid(1, 1, 1)
        conditioning = model.condition(times[:, None], grid, fps)
        signal = conditioning.head if of == "time" else model.signal(conditioning, None, grid)
        made = signal.cpu()  # the window's one wait
        self._made = dict(zip(times.tolist(), made.split(1), strict=True))

    def of(self, times: Sequence[float]) -> Tensor:
        """[1, frames, ...] for these timesteps of frames, of which one stands for all where they are equal."""
        return torch.cat([self._made[time] for time in (times[:1] if len(set(times)) == 1 else times)], dim=1)
