"""Moving contact sheets: every video plays in its own time, and begins again where it is shorter."""

import io
from itertools import accumulate

import numpy as np
import pytest
from PIL import Image, ImageSequence

from flowcache.errors import StoreError
from flowcache.report import sheet
from flowcache.report.sheet import ACROSS, HEIGHT, MARGIN, SECONDS, TITLE, moving_sheet
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run
from tests.unit.storage.samples import FPS, Studio, pixels, plan, request

LONG, SHORT = 3, 1  # segments: seconds, too
WIDTH = 2 * HEIGHT  # of a cell: the samples are 32 x 16


@pytest.fixture
def store(tmp_path) -> Store:
    """A video of three seconds, one that is waiting, and one of a second."""
    store = Store(str(tmp_path / "out"))
    requests = request("long", LONG), request("waiting", 1), request("short", SHORT)
    studio, parent = Studio(store, requests), None
    begin_run(store, studio.record())
    for segment in plan(requests):
        if segment.video_id != "waiting":
            parent = studio.render(segment, parent if segment.index else None)
    return store


def at(data: bytes, seconds: list[float]) -> list[np.ndarray]:
    """What is shown then. Pictures that are the same may be stored as one."""
    with Image.open(io.BytesIO(data)) as moving:
        shown = [
            (np.asarray(frame.convert("RGB"), int), frame.info["duration"]) for frame in ImageSequence.Iterator(moving)
        ]
        assert moving.info["loop"] == 0
    starts = [0.0, *accumulate(duration / 1000 for _, duration in shown)]
    assert abs(starts[-1] - SECONDS) < 0.3
    return [next(p for (p, _), end in zip(shown, starts[1:], strict=True) if end > second) for second in seconds]


def cell(picture: np.ndarray, number: int) -> np.ndarray:
    left = MARGIN + number * (WIDTH + MARGIN)
    return picture[MARGIN + TITLE : MARGIN + TITLE + HEIGHT, left : left + WIDTH]


@pytest.mark.parametrize("form", ["WEBP", "GIF"])
def test_each_video_plays_and_begins_again(store, form):
    first, later, again = at(moving_sheet(store, form), [0.05, 2.05, 3.05])
    assert first.shape == (2 * MARGIN + TITLE + HEIGHT, 2 * (WIDTH + MARGIN) + MARGIN, 3)  # the waiting one has no cell
    for picture, frame in ((first, 0), (later, 2 * FPS), (again, 0)):
        expected = Image.fromarray(pixels(request("long").seed, frame, 1)[0]).resize((WIDTH, HEIGHT))
        assert np.abs(cell(picture, 0) - np.asarray(expected, int)).mean() < 20, frame
    assert np.abs(cell(first, 0) - cell(later, 0)).mean() > 25
    assert np.abs(cell(first, 1) - cell(later, 1)).mean() < 6  # the short one for the third time


def test_more_videos_than_a_row_holds(store, monkeypatch):
    monkeypatch.setattr(sheet, "ACROSS", 1)
    with Image.open(io.BytesIO(moving_sheet(store, "WEBP"))) as moving:
        assert moving.size == (WIDTH + 2 * MARGIN, 2 * (TITLE + HEIGHT + MARGIN) + MARGIN)
    monkeypatch.setattr(sheet, "MOST", 1)
    with Image.open(io.BytesIO(moving_sheet(store, "WEBP"))) as moving:
        assert moving.height == TITLE + HEIGHT + 2 * MARGIN and ACROSS > 1


def test_without_a_chunk_there_is_nothing_to_show(tmp_path):
    store = Store(str(tmp_path / "out"))
    begin_run(store, Studio(store, (request("waiting"),)).record())
    with pytest.raises(StoreError, match="holds no finished chunk yet"):
        moving_sheet(store, "GIF")
