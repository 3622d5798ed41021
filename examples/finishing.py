"""A finishing function for `flowcache render --finish`: a poster, and the video with sound at broadcast level.

    PYTHONPATH=examples flowcache render night.jsonl --output runs/night --finish finishing:poster_and_sound

It is called once for each finished video, on a gang's rank 0, and what it writes to `video.folder` is stored below
`media/ID/finish/`. Copy this file and make your own of it.
"""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from PIL import Image

RATE, BLOCK = 48_000, 48_000  # samples a second, and at a time
LOUDNESS = "loudnorm=I=-23:TP=-2:LRA=7"  # EBU R 128: -23 LUFS, true peak -2 dB


def poster_and_sound(video):
    """poster.jpg: the frame with most detail in the middle third; video.mp4: with a stereo track, here a silent one."""
    begin, end = video.frames // 3, max(2 * video.frames // 3, video.frames // 3 + 1)
    best, most = None, -1.0
    for number, picture in enumerate(video.pictures()):
        if begin <= number < end and (found := detail(picture)) > most:
            best, most = picture, found
    Image.fromarray(best).save(video.folder / "poster.jpg", quality=90)
    with_sound(video.file, video.folder / "video.mp4", sound(video))


def sound(video):
    """Stereo in float32 [2, n], -1..1, a second at a time: silence. Put a model that makes sound here, or a file."""
    left = round(video.seconds * RATE)
    while left > 0:
        yield np.zeros((2, min(left, BLOCK)), np.float32)
        left -= BLOCK


def detail(picture):
    """Mean difference between neighbouring pixels, uint8 [H, W, 3]."""
    grey = picture.astype(np.float32).mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def with_sound(source, target, blocks):
    """The same pictures, packet by packet, beside the sound in AAC; the index in front, and what the source says of
    itself. The same sound gives the same bytes."""
    options = {"movflags": "faststart+use_metadata_tags", "fflags": "+bitexact"}
    with av.open(str(source)) as film, av.open(str(target), "w", format="mp4", container_options=options) as made:
        made.metadata.update({name: film.metadata[name] for name in ("digital_source_type", "comment")})
        pictures = made.add_stream_from_template(film.streams.video[0])
        track = made.add_stream("aac", rate=RATE, layout="stereo")
        track.bit_rate, track.options = 128_000, {"flags": "+bitexact"}
        for packet in film.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                made.mux(packet)
        for frame in normalised(blocks):
            made.mux(track.encode(frame))
        made.mux(track.encode(None))


def normalised(blocks) -> Iterator[av.AudioFrame]:
    """Brought to -23 LUFS by libav's `loudnorm`, which works at 192 kHz, and back; a silence stays one."""
    graph = av.filter.Graph()
    tail = graph.add_abuffer(sample_rate=RATE, format="fltp", layout="stereo", time_base=Fraction(1, RATE))
    for name, options in (
        LOUDNESS.split("=", 1),
        ("aresample", str(RATE)),
        ("aformat", "sample_fmts=fltp:channel_layouts=stereo"),
        ("asetnsamples", "n=1024:p=0"),
        ("abuffersink", None),
    ):
        following = graph.add(name, options)
        tail.link_to(following)
        tail = following
    graph.configure()
    at = 0
    for block in blocks:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block, np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), at
        at += block.shape[1]
        graph.push(frame)
        yield from pulled(graph)
    graph.push(None)
    yield from pulled(graph)


def pulled(graph) -> Iterator[av.AudioFrame]:
    """What has no loudness comes out of `loudnorm` as NaN: it is silence."""
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        clean = np.nan_to_num(frame.to_ndarray()).clip(-1, 1)
        out = av.AudioFrame.from_ndarray(clean, format="fltp", layout="stereo")
        out.sample_rate, out.time_base, out.pts = RATE, frame.time_base, frame.pts
        yield out
