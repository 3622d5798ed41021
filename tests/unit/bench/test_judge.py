"""The judge against videos whose content is known."""

import sys
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from PIL import Image

from benchmarks.fidelity import true_video
from benchmarks.judge import draw_sheet
from flowcache.bench.judge import Verdict, count, judge, verdict_of
from flowcache.bench.shapes import COLOURS, MOTIONS, SIZE, Scene, render, sample_scene
from flowcache.bench.vdp import color_video_vdp
from flowcache.families.codecs import load_codec
from flowcache.families.registry import find
from flowcache.worker.renderer import to_uint8


@pytest.mark.parametrize("seed", [5, 99])
@pytest.mark.parametrize(("name", "frames"), [("tiny-skyreels", 57), ("tiny-magi", 72)])
def test_known_videos_through_the_codec(name, frames, seed):
    """All 64 of them, of all kinds and motions, whatever the model itself can draw."""
    rng, codec = Random(seed), load_codec(f"{find(name).path}/vae")
    scenes = [sample_scene(rng) for _ in range(32)]
    right = count([(verdict_of(s), judge(to_uint8(codec.stream()(codec.encode(render(s, frames)))))) for s in scenes])
    assert right == dict.fromkeys(("background", "colour", "kind", "motion", "all"), 32)


@pytest.mark.parametrize("motion", MOTIONS)
def test_motions(motion):
    size = {"growing": 7.0, "shrinking": 17.0}.get(motion, 11.0)
    scene = Scene("circle", "red", "white", motion, 30.0, 25.0, size, 1.3)
    assert judge(to_uint8(render(scene))).motion == motion


def test_a_wrong_caption_is_noticed():
    scene = Scene("star", "red", "white", "left", 30.0, 25.0, 12.0, 1.3)
    seen = judge(to_uint8(render(scene)))
    assert seen == verdict_of(scene)
    asked = [Verdict("white", "red", "star", "left"), Verdict("white", "red", "circle", "right")]
    assert count([(a, seen) for a in asked]) == {"background": 2, "colour": 2, "kind": 1, "motion": 1, "all": 1}


def test_an_empty_picture_has_no_shape():
    assert judge(np.full((9, SIZE, SIZE, 3), 240, np.uint8)) is None
    assert count([(Verdict("white", "red", "star", "left"), None)])["all"] == 0


@pytest.mark.parametrize(("name", "frames"), [("sheet.png", 1), ("sheet.webp", 9)])
def test_sheets(name, frames, tmp_path):
    """Each video's first picture is where it belongs."""
    videos = [to_uint8(render(Scene("star", colour, "white", "left", 30.0, 25.0, 12.0, 1.3), 9)) for colour in COLOURS]
    draw_sheet([*videos, videos[0]], str(tmp_path / name), 12)
    with Image.open(tmp_path / name) as sheet:
        assert getattr(sheet, "n_frames", 1) == frames
        row, column = (1, 0) if frames == 1 else (0, 1)
        shown = np.asarray(sheet.convert("RGB"), int)[
            row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE
        ]
    assert np.abs(shown - videos[1][0]).mean() < 6


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_true_video_is_found_again(motion):
    """From where its shape is, and as large: the scene's own, but for pixels at edges."""
    size = {"growing": 7.0, "shrinking": 17.0}.get(motion, 11.0)
    scene = Scene("triangle", "red", "white", motion, 30.0, 25.0, size, 2.0, falling=False)
    video = to_uint8(render(scene))
    true = true_video(replace(scene, x=0.0, y=0.0, radius=5.0), video)
    assert true is not None and true.shape == video.shape
    assert np.abs(true.astype(int) - video).mean() < 2
    assert true_video(scene, np.full((9, SIZE, SIZE, 3), 240, np.uint8)) is None


def test_color_video_vdp_tells_why_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycvvdp", None)
    absent = color_video_vdp()
    assert isinstance(absent, str) and "pip install 'flowcache[bench]'" in absent


def test_color_video_vdp():
    metric = color_video_vdp()
    if isinstance(metric, str):
        pytest.skip(metric)
    scene = Scene("triangle", "red", "white", "left", 30.0, 25.0, 11.0, 2.0)
    video, other = to_uint8(render(scene)), to_uint8(render(replace(scene, kind="circle")))
    assert metric(video, video, 12) > 9.99 > 9.5 > metric(other, video, 12)
