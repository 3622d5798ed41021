"""Colours of video frames, there and back without drift."""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph

# libswscale's BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP, ACCURATE_RND; its default, made for speed, darkens by a level
EXACT = 0x4 | 0x2000 | 0x4000 | 0x40000
BT709 = "out_color_matrix=bt709:out_range=tv"
SITED = "out_chroma_loc=left"  # as H.264 says unless told; the default is half a pixel beside it


def rgb(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [H, W, 3]."""
    return frame.to_ndarray(format="rgb24", interpolation=EXACT)


def for_encoding(frames: np.ndarray, start_frame: int, fps: int) -> Iterator[av.VideoFrame]:
    """uint8 [T, H, W, 3] (even H and W) as YUV 4:2:0 by BT.709; the first frame's time is start_frame / fps seconds."""
    graph = conversion(frames.shape[2], frames.shape[1])
    for offset, pixels in enumerate(frames):
        graph.push(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))
        frame = graph.vpull()
        frame.pts, frame.time_base = start_frame + offset, Fraction(1, fps)
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
