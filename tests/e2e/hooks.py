"""Functions of a user's, called by name in processes of a run."""

import numpy as np


def invert(frames: np.ndarray, where) -> np.ndarray:
    """A mark that everybody sees."""
    assert frames.dtype == np.uint8 and where.device == "cpu"
    return 255 - frames


def fails(video) -> None:
    raise ValueError(f"no taste for {video.id}")
