from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.bench.shapes import (
    CHANGE,
    COLOURS,
    FRAMES,
    KINDS,
    LARGEST,
    MOTIONS,
    SIZE,
    SMALLEST,
    Scene,
    caption,
    coverage,
    render,
    sample_scene,
    track,
    vocabulary,
)

scenes = st.builds(lambda seed, continued: sample_scene(Random(seed), continued), st.integers(0, 10**6), st.booleans())


@given(scenes, st.integers(0, 100))
def test_captions_say_what_is_there(scene, seed):
    words = caption(scene, Random(seed)).split()
    assert set(words) <= set(vocabulary())
    assert words[1:3] == [scene.colour, scene.kind]
    assert scene.background in words[5:]
    assert "a orange" not in " ".join(words) and "an red" not in " ".join(words)


def test_captions_are_distinct():
    scene = sample_scene(Random(0))
    captions = {caption(Scene(k, c, scene.background, m, 1, 1, 9, 1)) for k in KINDS for c in COLOURS for m in MOTIONS}
    assert len(captions) == len(KINDS) * len(COLOURS) * len(MOTIONS)


@given(scenes)
@settings(deadline=None, max_examples=60)
def test_motion_is_smooth(scene):
    """Also where it changes, and where the shape wraps around: nothing jumps from one frame to the next."""
    t = torch.arange(-CHANGE, FRAMES - CHANGE, dtype=torch.float32)
    before = track(scene, scene.before or scene.motion, t[: CHANGE + 1])
    after = track(scene, scene.motion, t[CHANGE:])
    for old, new in zip(before, after, strict=True):
        assert torch.allclose(old[-1], new[0], atol=1e-3)  # t = 0 is the scene's own state
        assert old.diff().abs().max() < 12 and new.diff().abs().max() < 12
    assert after[2].min() >= min(SMALLEST, scene.radius) - 1e-4 and after[2].max() <= max(LARGEST, scene.radius) + 1e-4


@given(scenes, st.integers(1, 14))
@settings(deadline=None, max_examples=20)
def test_render_is_a_video_in_range(scene, chunk):
    video = render(scene, 1 + 4 * chunk)
    assert video.shape == (3, 1 + 4 * chunk, SIZE, SIZE)
    assert video.min() >= -1 and video.max() <= 1
    assert torch.allclose(video, render(scene)[:, : 1 + 4 * chunk], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_wrap_around(kind):
    """A shape in the middle, moved by half the picture, is the same picture rolled."""
    middle, radius = torch.tensor([SIZE / 2]), torch.tensor([11.0])
    whole = coverage(kind, middle, middle, radius)
    assert torch.allclose(coverage(kind, middle + SIZE / 2, middle, radius), whole.roll(SIZE // 2, 2), atol=1e-5)
    assert 0.3 < whole.sum() / (2 * 11) ** 2 < 1.2
