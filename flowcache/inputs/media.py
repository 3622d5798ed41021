"""Pictures and videos that requests start from, opened and decoded in this process: `sandbox.py` has one for that.

What a person names may be anything, so sizes are capped, picture and container formats are listed (of playlists, which
could name further files, only a run's own: `hls.py`), and every failure is a MediaError with a cause to read.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageOps

from flowcache.errors import MediaError, UnreadableError
from flowcache.inputs.deep import check_floats, eight_bit, float_tiff
from flowcache.inputs.fit import Fit, fitted
from flowcache.inputs.hls import is_playlist, whole
from flowcache.inputs.pixels import check_range, in_srgb, rgb, square
from flowcache.inputs.urls import WEB, Access, OpenFile, opened, resolve, scheme_of
from flowcache.records import MediaInfo, Rate

SCHEMES = ("file", "s3", "gs", "gcs", "az", "abfs", "http", "https", "memory")
BYTE_LIMIT = 512 << 20
PIXEL_LIMIT = 64_000_000  # of one picture or frame
PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,ogg"  # the demuxers that may open a file
STRIP = 256  # rows of a picture that are brought to RGB together
LONGEST = 30 * 86_400  # seconds of a video
PROBED_TAIL = 20  # seconds at a video's end that a probe decodes
BROKEN_PICTURE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
BROKEN_VIDEO = (FFmpegError, OSError, ValueError)


def probe_media(url: str, kind: str, base: str, access: Access | None = None, private: bool = False) -> MediaInfo:
    """What the "image" or "video" at `url` is; a relative path lies beside the file `base`.

    Decodes the whole picture, or a video's first frame and its last 20 seconds. MediaError says what is wrong.
    `access`: what s3:// URLs are opened with, `private`: whether http:// may lead to any address; here and below.
    """
    absolute = resolve(url, base)
    with _fetched(absolute, access, private) as file:
        if kind == "image":
            image = _picture(file)
            return MediaInfo(absolute, image.width, image.height, sha256=_sha256(file))
        with _Video(file) as video:
            check_range(next(video.sampled([video.first])))
            tail = max(video.first, video.last - PROBED_TAIL)
            size = [(frame.width, frame.height) for frame in video.sampled([tail, video.last])][-1]
            _check_pixels(*size)
            seconds = float(video.last - video.first)
            return MediaInfo(absolute, *size, video.count, video.fps, seconds, _sha256(file))


def load_image(
    url: str,
    width: int,
    height: int,
    sha256: str | None = None,
    access: Access | None = None,
    fit: Fit = "crop",
    private: bool = False,
) -> np.ndarray:
    """The picture as uint8 [1, height, width, 3], see `fit.fitted`.

    MediaError where it can't be read, or is not the file of that `sha256` any more (None: whatever is there).
    """
    with _fetched(url, access, private, sha256) as file:
        return np.asarray(fitted(_picture(file), width, height, fit))[None]


def load_clip(url: str, frames: int, fps: Rate, width: int, height: int, *how: Any, **also: Any) -> np.ndarray:
    """uint8 [frames, height, width, 3]: all that `clip_frames` gives."""
    return np.stack(list(clip_frames(url, frames, fps, width, height, *how, **also)))


def clip_frames(
    url: str,
    frames: int,
    fps: Rate,
    width: int,
    height: int,
    sha256: str | None = None,
    least: int | None = None,
    access: Access | None = None,
    fit: Fit = "crop",
    start: bool = False,
    private: bool = False,
) -> Iterator[np.ndarray]:
    """The last (or first: `start`) `frames` frames sampled at `fps`, uint8 [height, width, 3], sized like load_image's.

    least: a video that has fewer gives a multiple of this many. The last sample is the video's last frame, the others
    lie 1/fps apart before it (or after the first one) and take the frame nearest in time. MediaError as of load_image,
    and where there are too few.
    """
    with _fetched(url, access, private, sha256) as file, _Video(file) as video:
        have = MediaInfo(url, 0, 0, seconds=float(video.last - video.first)).frames_at(fps)
        if least and least <= have < frames:
            frames = have // least * least
        if have < frames:
            raise MediaError(f"has {have} frames at {fps} fps, and {least or frames} are needed")
        if start:
            times = [video.first + i / Fraction(fps) for i in range(frames)]
        else:
            times = [video.last - i / Fraction(fps) for i in reversed(range(frames))]
        for frame in video.sampled(times):
            yield np.asarray(fitted(_upright(frame, video.ratio), width, height, fit))


@contextmanager
def _fetched(url: str, access: Access | None, private: bool, sha256: str | None = None) -> Iterator[OpenFile]:
    scheme = scheme_of(url)
    if scheme not in SCHEMES or ("::" in url and scheme not in WEB):  # as in [::1] there, else two of fsspec's
        raise MediaError(f"has the scheme {scheme[:20]!r}; accepted: a path or {', '.join(SCHEMES)}")
    try:
        with (whole if is_playlist(url) else opened)(url, BYTE_LIMIT, access, private) as file:
            if not file.read(1):
                raise MediaError("is empty")
            if sha256 and _sha256(file) != sha256:
                raise MediaError("is not the file any more that was checked when the run began")
            file.seek(0)
            yield file
    except UnreadableError as error:
        raise MediaError(str(error), error.away) from error


def _sha256(file: OpenFile) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _check_pixels(width: int, height: int) -> None:
    if width * height > PIXEL_LIMIT:
        raise MediaError(f"has {width}x{height} pixels; accepted: at most {PIXEL_LIMIT / 1e6:.0f} million")


def _picture(file: OpenFile) -> Image.Image:
    """The first picture in the file, decoded, upright, RGB; what is transparent is white."""
    try:
        image = Image.open(file, formats=PICTURES)
    except Image.DecompressionBombError:
        raise MediaError(f"has too many pixels; accepted: at most {PIXEL_LIMIT / 1e6:.0f} million") from None
    except BROKEN_PICTURE as error:
        if found := float_tiff(file, _check_pixels):
            return found
        raise MediaError(f"is no picture that can be opened ({', '.join(PICTURES)})") from error
    _check_pixels(*image.size)
    try:
        if image.mode == "F":
            bounds: Any = image.getextrema()
            check_floats(*bounds)
        image = ImageOps.exif_transpose(image)
        if image.mode == "RGB" and not image.info.keys() & {"transparency", "icc_profile"}:
            image.load()
            return image
        plain, (width, height) = Image.new("RGB", image.size), image.size
        for top in range(0, height, STRIP):  # whole copies of each step would be gigabytes
            plain.paste(_plain(in_srgb(image.crop((0, top, width, min(top + STRIP, height))))), (0, top))
        return plain
    except BROKEN_PICTURE as error:
        raise MediaError(f"is a damaged picture ({str(error)[:100] or 'cannot be decoded'})") from error


def _plain(image: Image.Image) -> Image.Image:
    """RGB of 8 bits on white."""
    if image.mode.startswith(("I", "F")):
        image = eight_bit(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _upright(frame: av.VideoFrame, ratio: Fraction | None) -> Image.Image:
    """The frame as a picture, its pixels made square, turned as its camera was held. ratio: of a pixel's sides."""
    check_range(frame)
    _check_pixels(frame.width, frame.height)  # which need not be those of the container
    image = square(Image.fromarray(rgb(frame)), ratio)
    return image.rotate(frame.rotation, expand=True) if frame.rotation % 360 else image


class _Video:
    """A video file opened for reading: its times in seconds (exact), and its frames in order of time."""

    def __init__(self, file: OpenFile):
        self._file = file

    def __enter__(self) -> "_Video":
        try:
            self._container = av.open(self._file, mode="r", options={"format_whitelist": CONTAINERS})
        except BROKEN_VIDEO as error:
            raise MediaError("is no video that can be opened (MP4, MOV, WebM, Matroska, AVI, MPEG, Ogg)") from error
        try:
            self._measure()
        except MediaError:
            self._container.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def _measure(self) -> None:
        if not self._container.streams.video:
            raise MediaError("has no video in it, only sound or data")
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            raise MediaError("is a video of a kind that cannot be decoded")
        _check_pixels(self._stream.codec_context.width, self._stream.codec_context.height)
        count, begin, times, base = (
            0,
            2**63,
            (2**63, -(2**63)),
            self._stream.time_base,
        )  # kept one by one they would be gigabytes
        try:
            for packet in self._container.demux(self._stream):
                if packet.size and not packet.is_discard:
                    if packet.pts is None or base is None:
                        raise MediaError("has frames without times")
                    begin = min(begin, packet.pts, packet.pts if packet.dts is None else packet.dts)
                    count, times = count + 1, (min(times[0], packet.pts), max(times[1], packet.pts))
        except BROKEN_VIDEO as error:
            raise MediaError("is a damaged video: its end cannot be read") from error
        if not count or base is None:
            raise MediaError("has no frames")
        self.count, self._base, self.ratio = count, base, self._stream.sample_aspect_ratio
        self.first, self.last, self._begin = times[0] * base, times[1] * base, begin * base
        if self.last - self.first > LONGEST:
            raise MediaError(
                f"says that it lasts {float(self.last - self.first):,.0f} s; accepted: at most {LONGEST:,}"
            )
        self.fps = float((self.count - 1) / (self.last - self.first)) if self.last > self.first else 0.0

    def _decoded(self, time: Fraction) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        try:
            self._container.seek(int(time / self._base), stream=self._stream)
            for frame in self._container.decode(self._stream):
                if frame.is_corrupt:
                    raise MediaError("is a damaged video: a frame cannot be decoded")
                if frame.pts is not None:
                    yield frame.pts * self._base, frame
        except BROKEN_VIDEO as error:
            raise MediaError(f"is a damaged video ({getattr(error, 'strerror', None) or error})") from error

    def frames_from(self, time: Fraction) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """(time, frame) of all frames from the key frame at or before `time`. MediaError: cannot be decoded."""
        frames = self._decoded(max(time, self.first))
        head = next(frames, None)
        if head is None or head[0] > time:  # MPEG transport streams are sought roughly, by times of decoding
            frames = self._decoded(self._begin)
            head = next(frames, None)
        if head is not None:
            yield head
            yield from frames

    def sampled(self, times: list[Fraction]) -> Iterator[av.VideoFrame]:
        """For each of the ascending `times` the frame nearest to it, of two equally near ones the earlier.

        No more is decoded than that takes.
        """
        left = list(times)
        before: tuple[Fraction, av.VideoFrame] | None = None
        for now in self.frames_from(times[0]):
            while left and now[0] >= left[0]:
                yield (before if before and left[0] - before[0] <= now[0] - left[0] else now)[1]
                left.pop(0)
            if not left:
                return
            before = now
        if before is None or before[0] < self.last - 1:
            raise MediaError("is a damaged video: its last frames cannot be decoded")
        yield from (before[1] for _ in left)
