"""TIFF files as no library here writes them: floats in colour. For tests of what reads them."""

import struct

import numpy as np


def float_tiff(pixels: np.ndarray, order: str = "<") -> bytes:
    """Of [H, W, 3 or 4] floats of 32 bits, plain, in one strip. order: of the bytes, "<" or ">"."""
    height, width, samples = pixels.shape
    data = pixels.astype(f"{order}f4").tobytes()
    lists = struct.pack(f"{order}{samples}H", *[32] * samples) + struct.pack(f"{order}{samples}H", *[3] * samples)
    extra = [(338, 3, 1, 2)] if samples == 4 else []  # an alpha beside the colours
    count = 11 + len(extra)
    behind = 8 + 2 + 12 * count + 4
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, samples, behind), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, behind + len(lists)), (277, 3, 1, samples), (278, 4, 1, height), (279, 4, 1, len(data)),
        (284, 3, 1, 1), *extra, (339, 3, samples, behind + 2 * samples),
    ]  # fmt: skip
    found = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, count)
    for tag, kind, number, value in tags:
        packed = f"{order}HHIHxx" if kind == 3 and number == 1 else f"{order}HHII"
        found += struct.pack(packed, tag, kind, number, value)
    return found + struct.pack(f"{order}I", 0) + lists + data
