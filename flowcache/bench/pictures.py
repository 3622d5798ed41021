"""How far two videos are apart: PSNR and SSIM."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FRAMES = 8  # that are compared at once: those of a real checkpoint do not fit a machine all together


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of two videos, uint8 [T, H, W, 3], in dB; equal ones count as 100."""
    error = np.square(a.astype(np.float64) - b).mean()
    return 100.0 if error == 0 else min(100.0, float(10 * np.log10(255**2 / error)))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of two videos, uint8 [T, H, W, 3]: mean over frames and colours.

    Gaussian window of 11 pixels, sigma 1.5; only where it lies wholly inside the picture.
    """
    parts = [(a[i : i + FRAMES], b[i : i + FRAMES]) for i in range(0, len(a), FRAMES)]
    return sum(_ssim(*part) * len(part[0]) for part in parts) / len(a)


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    x, y = (torch.from_numpy(video).permute(0, 3, 1, 2).flatten(0, 1)[:, None].double() for video in (a, b))
    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def blurred(x: Tensor, size: int = 11, sigma: float = 1.5) -> Tensor:
    """[N, 1, H, W] under a Gaussian window, without borders."""
    place = torch.arange(size, dtype=x.dtype) - size // 2
    window = torch.exp(-(place**2) / (2 * sigma**2))
    window = window / window.sum()
    return F.conv2d(F.conv2d(x, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
