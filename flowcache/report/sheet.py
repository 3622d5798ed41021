"""A contact sheet: one row of frames for each video, with its id and prompts."""

import io
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flowcache.errors import StoreError, masked
from flowcache.records import ChunkRecord
from flowcache.storage import layout
from flowcache.storage.commits import chunks_of, read_commits
from flowcache.storage.media import decode
from flowcache.storage.objects import Store
from flowcache.storage.runs import read_run

COLUMNS = 10
HEIGHT = 112  # pixels of a frame on the sheet
MARGIN, TITLE = 6, 20


def contact_sheet(store: Store, columns: int = COLUMNS) -> bytes:
    """PNG of `columns` frames, evenly spaced, of every video that has a committed chunk."""
    commits = read_commits(store)
    strips = []
    for request in read_run(store).requests:
        chunks = chunks_of(commits.markers.get(request["id"], ()))
        if chunks:
            strips.append((_title(request), _frames(store, request["id"], chunks, columns)))
    if not strips:
        raise StoreError(f"{masked(store.url)} holds no finished chunk yet: no frame to show")
    return _png(_draw(strips))


def _title(request: dict) -> str:
    prompts = " | ".join(shot["prompt"] for shot in request["shots"])
    given = {"image": "image start", "video": "video start", "end_image": "image end"}
    sources = ", ".join(text for field, text in given.items() if request.get(field))
    return f"{request['id']}: {prompts}" + (f"  ({sources})" if sources else "")


def _frames(store: Store, video_id: str, chunks: Sequence[ChunkRecord], columns: int) -> list[np.ndarray]:
    """The wanted frames; each chunk is fetched and decoded once."""
    total = sum(chunk.frames for chunk in chunks)
    wanted = sorted({round(i * (total - 1) / max(1, columns - 1)) for i in range(columns)})
    starts = [sum(chunk.frames for chunk in chunks[:i]) for i in range(len(chunks))]
    init = store.get(layout.init_key(video_id))
    frames = []
    for number in sorted({bisect_right(starts, frame) - 1 for frame in wanted}):
        inside = [frame - starts[number] for frame in wanted if bisect_right(starts, frame) - 1 == number]
        pictures = [picture for picture, _ in decode(init, [store.get(chunks[number].key)])]
        frames += [pictures[frame] for frame in inside]
    return frames


def _draw(strips: list[tuple[str, list[np.ndarray]]]) -> Image.Image:
    def width(frames):
        return sum(round(HEIGHT * frame.shape[1] / frame.shape[0]) + MARGIN for frame in frames) + MARGIN

    row = HEIGHT + TITLE + MARGIN
    sheet = Image.new("RGB", (max(width(frames) for _, frames in strips), row * len(strips) + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (title, frames) in enumerate(strips):
        top, left = number * row + MARGIN, MARGIN
        draw.text((left, top), title, fill="black", font=font)
        for frame in frames:
            size = round(HEIGHT * frame.shape[1] / frame.shape[0]), HEIGHT
            sheet.paste(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC), (left, top + TITLE))
            left += size[0] + MARGIN
    return sheet


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
