"""The judge against videos whose content is known."""

from random import Random

import numpy as np
import pytest

from benchmarks.judge import Verdict, count, judge, verdict_of
from flowcache.families.codecs import load_codec
from flowcache.families.registry import find
from training.shapes import MOTIONS, SIZE, Scene, render, sample_scene


def pixels(video):
    return ((video + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()


@pytest.mark.parametrize("seed", [5, 99])
@pytest.mark.parametrize(("name", "frames"), [("tiny-skyreels", 57), ("tiny-magi", 72)])
def test_known_videos_through_the_codec(name, frames, seed):
    """All 64 of them, of all kinds and motions, whatever the model itself can draw."""
    rng, codec = Random(seed), load_codec(f"{find(name).path}/vae")
    scenes = [sample_scene(rng) for _ in range(32)]
    right = count([(verdict_of(s), judge(pixels(codec.stream()(codec.encode(render(s, frames)))))) for s in scenes])
    assert right == dict.fromkeys(("background", "colour", "kind", "motion", "all"), 32)


@pytest.mark.parametrize("motion", MOTIONS)
def test_motions(motion):
    size = {"growing": 7.0, "shrinking": 17.0}.get(motion, 11.0)
    scene = Scene("circle", "red", "white", motion, 30.0, 25.0, size, 1.3)
    assert judge(pixels(render(scene))).motion == motion


def test_a_wrong_caption_is_noticed():
    scene = Scene("star", "red", "white", "left", 30.0, 25.0, 12.0, 1.3)
    seen = judge(pixels(render(scene)))
    assert seen == verdict_of(scene)
    asked = [Verdict("white", "red", "star", "left"), Verdict("white", "red", "circle", "right")]
    assert count([(a, seen) for a in asked]) == {"background": 2, "colour": 2, "kind": 1, "motion": 1, "all": 1}


def test_an_empty_picture_has_no_shape():
    assert judge(np.full((9, SIZE, SIZE, 3), 240, np.uint8)) is None
    assert count([(Verdict("white", "red", "star", "left"), None)])["all"] == 0
