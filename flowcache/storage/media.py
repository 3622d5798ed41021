"""Video chunks: fragmented MP4 for HLS, encoded, listed, joined and decoded. Bytes in, bytes out."""

import io
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from flowcache.errors import ObjectError
from flowcache.inputs.pixels import for_encoding, rgb
from flowcache.records import Rate
from flowcache.storage.playlist import playlist

__all__ = ["EncodedChunk", "decode", "encode_chunk", "join", "playlist"]

# IPTC's term for synthetic media, https://cv.iptc.org/newscodes/digitalsourcetype/
AI_MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
METADATA = {"digital_source_type": AI_MADE, "comment": "Made by a generative AI model"}

CODEC = "libx264"
QUALITY = "18"  # x264's constant rate factor; 18 and below pass for visually lossless
BT709 = {"colorprim": "bt709", "transfer": "bt709", "colormatrix": "bt709"}


@dataclass(frozen=True)
class EncodedChunk:
    """`init`: ftyp and moov, the same for every chunk of one size and frame rate; `data`: moof and mdat."""

    init: bytes
    data: bytes


def encode_chunk(frames: np.ndarray, start_frame: int, fps: Rate) -> EncodedChunk:
    """Frames uint8 [T, H, W, 3] (even H and W) as one closed H.264 GOP that starts at start_frame / fps
    seconds. The same frames give the same bytes."""
    file = io.BytesIO()
    options = {"movflags": "cmaf+frag_discont+use_metadata_tags", "fragment_index": str(start_frame + 1)}
    with av.open(file, "w", format="mp4", container_options={**options, "fflags": "+bitexact"}) as container:
        container.metadata.update(METADATA)
        stream = add_stream(container, frames.shape[2], frames.shape[1], fps)
        stream.codec_context.open()
        unsigned = BitStreamFilterContext("filter_units=remove_types=6", stream)  # drops x264's banner
        for packet in packets(stream, frames, start_frame, fps):
            packet.duration = packet.duration or int(1 / Fraction(fps) / packet.time_base)
            container.mux(unsigned.filter(packet))
    return split(file.getvalue())


def add_stream(container: OutputContainer, width: int, height: int, fps: Rate) -> VideoStream:
    """An H.264 stream whose every chunk decodes alone: one key frame at its start and no B-frames."""
    stream = container.add_stream(CODEC, rate=fps)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1  # more threads, other bytes
    stream.codec_context.time_base = 1 / Fraction(fps)
    # x264's MB-tree with AVX-512 gives other bytes once in some hundred chunks: it reads memory that nobody set
    steady = {"threads": "1", "mbtree": "0"}
    x264 = {"open-gop": "0", "bframes": "0", "keyint": "infinite", "scenecut": "0", **steady, **BT709}
    stream.options = {
        "crf": QUALITY,
        "preset": "medium",
        "flags": "+cgop+bitexact",
        "x264-params": ":".join(f"{name}={value}" for name, value in x264.items()),
    }
    return stream


def packets(stream: VideoStream, frames: np.ndarray, start_frame: int, fps: Rate) -> Iterator[av.Packet]:
    for frame in for_encoding(frames, start_frame, fps):
        yield from stream.encode(frame)
    yield from stream.encode()


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The top-level boxes of an MP4 file: (type, whole box)."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        header = 8
        if size == 1:
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if size < header or at + size > len(data):
            raise ObjectError(f"broken MP4: a box at byte {at} claims {size} of {len(data) - at} bytes")
        yield data[at + 4 : at + 8].decode("latin-1"), data[at : at + size]
        at += size


def split(file: bytes) -> EncodedChunk:
    """Cut a fragmented MP4 into init segment and fragments. The mfra index goes: it counts from the file's start."""
    init, fragments = [], []
    for kind, box in boxes(file):
        if kind in ("ftyp", "moov"):
            init.append(box)
        elif kind != "mfra":
            fragments.append(box)
    return EncodedChunk(b"".join(init), b"".join(fragments))


def join(init: bytes, segments: Iterable[bytes]) -> bytes:
    """One plain MP4 with its index in front, of the same packets, and with the metadata kept; ObjectError where
    the bytes are no video."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video.mp4")  # moving the index to the front needs a real file
        try:
            with av.open(io.BytesIO(init + b"".join(segments)), "r") as source:
                remux(source, path)
        except (FFmpegError, IndexError, ValueError) as fault:
            raise ObjectError(f"the chunks do not join: {fault}") from fault
        return path.read_bytes()


def remux(source: InputContainer, path: Path) -> None:
    options = {"movflags": "faststart+use_metadata_tags", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", container_options=options) as target:
        target.metadata.update({name: source.metadata[name] for name in METADATA if name in source.metadata})
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:  # the flushing packet at the end is empty
                packet.stream = stream
                target.mux(packet)


def decode(init: bytes, segments: Iterable[bytes]) -> Iterator[tuple[np.ndarray, float]]:
    """Every frame as uint8 [H, W, 3] with its time in seconds; ObjectError where the bytes do not decode."""
    try:
        with av.open(io.BytesIO(init + b"".join(segments)), "r") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                if frame.pts is None or frame.time_base is None:
                    raise ObjectError("the video does not decode: a frame has no time")
                yield rgb(frame), float(frame.pts * frame.time_base)
    except (FFmpegError, IndexError, ValueError) as fault:  # ValueError: metadata that are no text
        raise ObjectError(f"the video does not decode: {fault}") from fault
