"""How far two videos are apart."""

import numpy as np
import pytest

from flowcache.bench import pictures
from flowcache.bench.pictures import psnr, ssim


def video(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def test_psnr():
    black = np.zeros((1, 16, 16, 3), np.uint8)
    assert psnr(black, black) == 100
    assert psnr(black, black + 1) == pytest.approx(20 * np.log10(255))


def test_ssim():
    assert ssim(video(), video()) == pytest.approx(1)
    assert abs(ssim(video(), video(1))) < 0.1
    flat = np.full((1, 16, 16, 3), 100, np.uint8)
    c1 = (0.01 * 255) ** 2  # of flat pictures only their brightness differs
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ssim(flat, flat + 20) == pytest.approx(expected)


def test_frames_are_compared_a_few_at_a_time(monkeypatch):
    whole = ssim(video(), video(1))
    monkeypatch.setattr(pictures, "FRAMES", 1)
    assert ssim(video(), video(1)) == pytest.approx(whole, rel=1e-12)
