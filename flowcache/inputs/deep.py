"""Pictures of more than 8 bits, brought to 8: numbers of 16 bits, and floats of which 0 is black and 1 is white."""

from collections.abc import Callable

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image

from flowcache.errors import MediaError
from flowcache.inputs.urls import OpenFile

TIFF = (b"II*\0", b"MM\0*")
FLOATS = ("grayf32", "rgbf32", "rgbaf32")  # as libav calls floats by pixel, before the order of their bytes
OVER = 1 / 512  # what scaling leaves below black and above white
ACCEPTED = "accepted: floats from 0 (black) to 1 (white), or 8 or 16 bits"


def check_floats(low: float, high: float) -> None:
    """MediaError for what is no picture from 0 to 1: nobody says what is white in it."""
    if not (low >= -OVER and high <= 1 + OVER):  # NaN, too
        raise MediaError(f"has floats from {low:g} to {high:g}; {ACCEPTED}")


def of_floats(values: np.ndarray) -> np.ndarray:
    """uint8 of floats that were checked."""
    if not np.isfinite(values).all():
        raise MediaError(f"has pixels that are no number; {ACCEPTED}")
    return (values.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def eight_bit(image: Image.Image) -> Image.Image:
    """A grey picture (mode I or F) in 8 bits; of 32 bits a pixel nobody says what is white. MediaError."""
    values = np.asarray(image)
    if image.mode == "F":
        return Image.fromarray(of_floats(values))
    if values.min() < 0 or values.max() > 0xFFFF:
        raise MediaError("has numbers of 32 bits a pixel; accepted: 8 or 16 bits")
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


def float_tiff(file: OpenFile, check: Callable[[int, int], None]) -> Image.Image | None:
    """A TIFF of floats in colour, which PIL does not open; what is transparent is white. None: the file is none.

    check: is told width and height before it is decoded. MediaError: other floats than from 0 to 1.
    """
    file.seek(0)
    if file.read(4) not in TIFF:
        return None
    file.seek(0)
    try:
        with av.open(file, mode="r", format="tiff_pipe") as found:
            check(found.streams.video[0].codec_context.width, found.streams.video[0].codec_context.height)
            frame = next(found.decode(video=0))
        if frame.format.name.removesuffix("le").removesuffix("be") not in FLOATS:
            return None
        values = frame.to_ndarray()
    except (FFmpegError, OSError, ValueError, StopIteration, IndexError):
        return None
    check_floats(float(values.min()), float(values.max()))
    if values.ndim == 3 and values.shape[2] == 4:
        values = values[..., :3] * values[..., 3:] + (1 - values[..., 3:])
    return Image.fromarray(of_floats(values)).convert("RGB")
