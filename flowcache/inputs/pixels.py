"""Colours of video frames, there and back without drift."""

import io
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from PIL import Image, ImageCms

from flowcache.errors import MediaError
from flowcache.records import Rate

# libswscale's BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP, ACCURATE_RND; its default, made for speed, darkens by a level
EXACT = 0x4 | 0x2000 | 0x4000 | 0x40000
BT709 = "out_color_matrix=bt709:out_range=tv"
PROFILED, PROFILE_LIMIT = ("RGB", "RGBA", "L", "CMYK"), 4 << 20  # modes that a profile can be of; bytes
HIGH_RANGE = {16: "PQ", 18: "HLG"}  # by the number of the transfer function in ITU-T H.273
WIDEST = 4  # times as wide as high, or as high as wide: more is a mistake in the file
SITED = "out_chroma_loc=left"  # as H.264 says unless told; the default is half a pixel beside it


def rgb(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [H, W, 3]."""
    return frame.to_ndarray(format="rgb24", interpolation=EXACT)


def for_encoding(frames: np.ndarray, start_frame: int, fps: Rate) -> Iterator[av.VideoFrame]:
    """uint8 [T, H, W, 3] (even H and W) as YUV 4:2:0 by BT.709; the first frame's time is start_frame / fps seconds."""
    tick = 1 / Fraction(fps)
    graph = conversion(frames.shape[2], frames.shape[1])
    for offset, pixels in enumerate(frames):
        graph.push(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))
        frame = graph.vpull()
        frame.pts, frame.time_base = start_frame + offset, tick
        yield frame


def conversion(width: int, height: int) -> Graph:
    graph = Graph()
    graph.threads = 1
    graph.link_nodes(
        graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1, 1)),
        graph.add("scale", f"flags={EXACT}:{BT709}:{SITED}"),
        graph.add("format", "pix_fmts=yuv420p"),
        graph.add("buffersink"),
    ).configure()
    return graph


def in_srgb(image: Image.Image) -> Image.Image:
    """The picture as its colour profile says that it looks; as it is without one, or with one of another kind."""
    profile = image.info.get("icc_profile")
    if not profile or len(profile) > PROFILE_LIMIT or image.mode not in PROFILED:
        return image
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(given).lower():
            return image
        plain = image.convert("RGB") if alpha else image
        found = ImageCms.profileToProfile(plain, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # as browsers do, too
        return image
    if found is None:
        return image
    if alpha:
        found.putalpha(alpha)
    return found


def check_range(frame: av.VideoFrame) -> None:
    """MediaError for brightness that a screen of 8 bits does not show: nobody says how it is to be brought there."""
    if name := HIGH_RANGE.get(int(frame.color_trc)):
        accepted = "video of standard range, such as ffmpeg's filter tonemap makes of it"
        raise MediaError(f"is of high dynamic range ({name}); accepted: {accepted}")


def square(image: Image.Image, ratio: Fraction | None) -> Image.Image:
    """A frame as it is shown, where its pixels are `ratio` times as wide as high: wider or narrower, not higher."""
    if not ratio or ratio == 1 or not 1 / WIDEST <= ratio <= WIDEST:
        return image
    return image.resize((max(round(image.width * ratio), 1), image.height), Image.Resampling.BICUBIC)
