"""Picture differences, and means with their confidence intervals."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of two videos, uint8 [T, H, W, 3], in dB; equal ones count as 100."""
    error = np.square(a.astype(np.float64) - b).mean()
    return 100.0 if error == 0 else min(100.0, float(10 * np.log10(255**2 / error)))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of two videos, uint8 [T, H, W, 3]: mean over frames and colours.

    Gaussian window of 11 pixels, sigma 1.5; only where it lies wholly inside the picture.
    """
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


def interval(values: list[float], draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean with its 95 % confidence interval (bootstrap over the values): (mean, low, high)."""
    sample = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = sample[rng.integers(0, len(sample), (draws, len(sample)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(sample.mean()), float(low), float(high)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
