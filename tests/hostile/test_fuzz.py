"""Whatever is given ends as a run or as exit code 2 with a sentence: no traceback, no gigabyte, no ten seconds."""

import io
import os
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from flowcache.cli import stop
from tests.hostile import bombs
from tests.hostile.fuzzing import ROOT, Kind, command, kinds, run

FEW, MANY = 25, 10_000
PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")
VIDEOS = {
    "matroska": "mpeg4",
    "avi": "mpeg4",
    "mpegts": "mpeg2video",
    "webm": "libvpx",
    "mov": "libx264",
    "ogg": "libtheora",
}


def picture(kind: str) -> bytes:
    data, pixels = io.BytesIO(), np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


def video(container: str, codec: str) -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format=container) as out:
        stream = out.add_stream(codec, rate=12)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for grey in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 30 * grey, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return data.getvalue()


def every_kind() -> dict[str, Kind]:
    known = {name: codec for name, codec in VIDEOS.items() if codec in av.codecs_available}
    media = [*map(picture, PICTURES), bombs.small_mp4(), *(video(*each) for each in known.items())]
    tables = [(ROOT / "manifests" / name).read_bytes() for name in ("example.parquet", "example.csv", "demo.jsonl")]
    return kinds({"media": tuple(media), "tables": tuple(tables)})


def many(kind: str, folder: str, seed: int) -> int:
    """In a process of its own: what Hypothesis remembers of another kind, gigabytes, would count as kept."""
    os.chdir(folder)
    return run(every_kind()[kind], MANY, seed)


@pytest.fixture(scope="module")
def every():
    return every_kind()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("m.csv").write_text("prompt\na red circle\n")
    Path("a.png").write_bytes(picture("PNG"))
    Path("job.yaml").write_text("manifest: m.csv\noutput: out\n")


KINDS = ("rows", "jobs", "models", "commands", "tables", "media")


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_of_each_kind(every, kind):
    assert run(every[kind], FEW) >= FEW // 2


def test_a_command_that_is_drawn_stops_no_night_beside_it(monkeypatch):
    told = []
    monkeypatch.setattr(stop, "renders", lambda entry: entry.name == str(os.getpid()))
    monkeypatch.setattr(stop, "tell", told.append)
    assert command(["stop"]) == (0, "nothing runs here\n") and not told


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_of_each_kind(tmp_path, kind):
    seed = random.randrange(10**9)
    print(f"{kind}: seed {seed}")
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        tried = process.submit(many, kind, str(tmp_path), seed).result()
    print(f"{kind}: {tried:,} tried")
