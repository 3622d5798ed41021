"""A contact sheet: one row of frames for each video, with its id and prompts."""

import io

from PIL import Image, ImageDraw, ImageFont

from flowcache.errors import StoreError, masked
from flowcache.report.frames import spread_frames, strip
from flowcache.storage.commits import chunks_of, read_commits
from flowcache.storage.objects.store import Store
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
            strips.append(
                (_title(request), strip(spread_frames(store, request["id"], chunks, columns), HEIGHT, MARGIN))
            )
    if not strips:
        raise StoreError(f"{masked(store.url)} holds no finished chunk yet: no frame to show")
    return _png(_draw(strips))


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


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
