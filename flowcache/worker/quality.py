"""What can be seen of a spoilt chunk in its pixels, cheaply. Pure."""

import numpy as np

DARK = 12  # of 255: what no pixel of a black chunk exceeds (video black is 16 of 235, plus noise of the codec)
STILL = 0.05  # of 255: mean change from frame to frame below which nothing moves
EXTREME = 2  # of 255: that far from either end, a value counts as saturated
SATURATED = 0.9  # share of such values
EVEN = 2.0  # of 255: standard deviation of each frame's colour below which it shows nothing
NOISE = 40.0  # of 255: mean step between neighbouring pixels above which it is noise


def flaw(frames: np.ndarray) -> str | None:
    """One of black, saturated and frozen; None where nothing of that kind is seen.

    frames: uint8 [T, H, W, 3]. Saturated: nearly all values at an end of their range, and either no content at all or
    noise; a drawing in pure colours is neither. What a prompt asks for can look the same, so this is a suspicion.
    """
    if frames.max() <= DARK:
        return "black"
    values = frames.astype(np.int16)
    ends = ((values <= EXTREME) | (values >= 255 - EXTREME)).mean()
    if ends > SATURATED and (values.std(axis=(1, 2)).max() < EVEN or np.abs(np.diff(values, axis=2)).mean() > NOISE):
        return "saturated"
    if len(frames) > 1 and np.abs(np.diff(values, axis=0)).mean() < STILL:
        return "frozen"
    return None
