"""Contact sheets: one row of frames for each video, with its id and prompts; or all videos side by side, moving."""

import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from flowcache.errors import StoreError, masked
from flowcache.records import ChunkRecord, read_rate
from flowcache.report.frames import frames_at, spread_frames, strip
from flowcache.storage.commits import chunks_of, read_commits
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import read_run

COLUMNS = 10
HEIGHT = 112  # pixels of a frame on the sheet
MARGIN, TITLE = 6, 20
RATE, SECONDS, MOST, ACROSS = 12, 5, 63, 7  # of a moving sheet: pictures a second; its length; videos; in a row


def contact_sheet(store: Store, columns: int = COLUMNS) -> bytes:
    """PNG of `columns` frames, evenly spaced, of every video that has a committed chunk."""
    strips = [
        (_title(request), strip(spread_frames(store, request["id"], chunks, columns), HEIGHT, MARGIN))
        for request, chunks in _begun(store)
    ]
    return _encoded([_draw(strips)], "PNG", optimize=True)


def moving_sheet(store: Store, form: str) -> bytes:
    """WEBP or GIF (`form`) in which the first MOST videos that have a committed chunk play side by side, their first
    SECONDS in their own time; what is shorter begins again."""
    cells = [_cells(store, request, chunks) for request, chunks in islice(_begun(store), MOST)]
    width = max(cell[0].width for cell in cells)
    rows, row = -(-len(cells) // ACROSS), HEIGHT + TITLE + MARGIN
    pictures = []
    for time in range(RATE * SECONDS):
        picture = Image.new("RGB", (min(ACROSS, len(cells)) * (width + MARGIN) + MARGIN, rows * row + MARGIN), "white")
        for number, cell in enumerate(cells):
            down, across = divmod(number, ACROSS)
            picture.paste(cell[time % len(cell)], (MARGIN + across * (width + MARGIN), MARGIN + down * row))
        pictures.append(picture)
    if form == "GIF":  # by median cut, as PIL does it, this takes 500 times as long
        pictures = [picture.quantize(method=Image.Quantize.FASTOCTREE) for picture in pictures]
    moving = {"save_all": True, "append_images": pictures[1:], "duration": 1000 // RATE, "loop": 0}
    return _encoded(pictures, form, quality=80, **moving)


def _begun(store: Store) -> Iterator[tuple[dict, list[ChunkRecord]]]:
    """Requests that have a committed chunk, and those. StoreError where there is none."""
    commits, found = read_commits(store), False
    for request in read_run(store).requests:
        if chunks := chunks_of(commits.markers.get(request["id"], ())):
            found = True
            yield request, chunks
    if not found:
        raise StoreError(f"{masked(store.url)} holds no finished chunk yet: no frame to show")


def _cells(store: Store, request: dict, chunks: list[ChunkRecord]) -> list[Image.Image]:
    """A video's pictures at RATE, each below its id."""
    fps, total = read_rate(request["fps"]), sum(chunk.frames for chunk in chunks)
    count = min(int(total * RATE / fps), RATE * SECONDS)
    wanted = [int(time * fps / RATE) for time in range(max(1, count))]
    numbers = sorted(set(wanted))
    shown = dict(zip(numbers, frames_at(store, request["id"], chunks, numbers), strict=True))
    cells = []
    for number in wanted:
        frame = strip([shown[number]], HEIGHT, 0)
        cell = Image.new("RGB", (frame.width, HEIGHT + TITLE), "white")
        ImageDraw.Draw(cell).text((0, 0), request["id"], fill="black", font=ImageFont.load_default(13))
        cell.paste(frame, (0, TITLE))
        cells.append(cell)
    return cells


def _title(request: dict) -> str:
    prompts = " | ".join(shot["prompt"] for shot in request["shots"])
    given = {"image": "image start", "video": "video start", "end_image": "image end"}
    sources = ", ".join(text for field, text in given.items() if request.get(field))
    return f"{request['id']}: {prompts}" + (f"  ({sources})" if sources else "")


def _draw(strips: list[tuple[str, Image.Image]]) -> Image.Image:
    row = HEIGHT + TITLE + MARGIN
    width = max(image.width for _, image in strips) + 2 * MARGIN
    sheet = Image.new("RGB", (width, row * len(strips) + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (title, image) in enumerate(strips):
        top = number * row + MARGIN
        draw.text((MARGIN, top), title, fill="black", font=font)
        sheet.paste(image, (MARGIN, top + TITLE))
    return sheet


def _encoded(pictures: list[Image.Image], form: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    pictures[0].save(buffer, form, **how)
    return buffer.getvalue()
