"""Frames of a finished video, as many as a picture of it shows."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from PIL import Image

from flowcache.errors import ObjectError
from flowcache.records import ChunkRecord
from flowcache.storage import layout
from flowcache.storage.media import decode
from flowcache.storage.objects.store import Store


def spread_frames(store: Store, video_id: str, chunks: Sequence[ChunkRecord], count: int) -> list[np.ndarray]:
    """At most `count` frames, evenly spaced; otherwise as `frames_at`."""
    total = sum(chunk.frames for chunk in chunks)
    return frames_at(
        store, video_id, chunks, sorted({round(i * (total - 1) / max(1, count - 1)) for i in range(count)})
    )


def frames_at(store: Store, video_id: str, chunks: Sequence[ChunkRecord], wanted: Sequence[int]) -> list[np.ndarray]:
    """The frames of these numbers, which ascend, uint8 [H, W, 3]; each chunk is fetched and decoded once.

    ObjectError where one is damaged.
    """
    starts = [sum(chunk.frames for chunk in chunks[:i]) for i in range(len(chunks))]
    init = store.get(layout.init_key(video_id))
    frames = []
    for number in sorted({bisect_right(starts, frame) - 1 for frame in wanted}):
        inside = [frame - starts[number] for frame in wanted if bisect_right(starts, frame) - 1 == number]
        pictures = [picture for picture, _ in decode(init, [store.get(chunks[number].key)])]
        if len(pictures) != chunks[number].frames:
            raise ObjectError(f"{chunks[number].key} holds {len(pictures)} frames of {chunks[number].frames}")
        frames += [pictures[frame] for frame in inside]
    return frames


def strip(frames: Sequence[np.ndarray], height: int, gap: int) -> Image.Image:
    """The frames side by side, scaled to `height`, with `gap` white pixels between them."""
    sizes = [(round(height * frame.shape[1] / frame.shape[0]), height) for frame in frames]
    image = Image.new("RGB", (sum(width + gap for width, _ in sizes) - gap, height), "white")
    left = 0
    for frame, wanted in zip(frames, sizes, strict=True):
        image.paste(Image.fromarray(frame).resize(wanted, Image.Resampling.BICUBIC), (left, 0))
        left += wanted[0] + gap
    return image
