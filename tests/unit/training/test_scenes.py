from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.bench.shapes import MOTIONS, SIZE, WORLD, World, caption, render, vocabulary
from training.scenes import Mix, swapped


def test_weights_are_those_of_the_plan():
    rng, mix = Random(0), Mix(WORLD, {"star": 0.25, "bouncing": 0.5})
    scenes = [mix.scene(rng) for _ in range(4000)]
    kinds, motions = ([getattr(scene, name) for scene in scenes] for name in ("kind", "motion"))
    assert kinds.count("star") / kinds.count("circle") == pytest.approx(0.25, abs=0.06)
    assert motions.count("bouncing") / motions.count("still") == pytest.approx(0.5, abs=0.12)


def test_only_what_the_world_has_is_drawn():
    rng, world = Random(0), World(("star",), ("up", "still"))
    scenes = [Mix(world).scene(rng, continued=True) for _ in range(200)]
    assert {scene.kind for scene in scenes} == {"star"} and {scene.motion for scene in scenes} == {"up", "still"}
    assert {scene.before for scene in scenes} == {"up", "still", None}
    assert all(set(caption(scene, rng).split()) <= set(vocabulary(world)) for scene in scenes)


def test_shapes_start_in_the_middle_while_there_is_little_room():
    scenes = [Mix(WORLD, room=0.2).scene(Random(seed)) for seed in range(200)]
    assert all(abs(place - SIZE / 2) <= 0.2 * SIZE / 2 for scene in scenes for place in (scene.x, scene.y))


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_a_turned_scene_begins_as_videos_do_and_goes_on_otherwise(seed, chunk):
    rng, change = Random(seed), 24 * chunk
    scene = Mix(WORLD).scene(rng)
    turned = Mix(WORLD).turned(scene, change, rng)
    assert turned.motion != scene.motion == turned.before and turned.kind == scene.kind
    if scene.motion in ("left", "right", "up", "down", "still"):  # the others forget where they began
        assert torch.allclose(render(turned, change + 1, change)[:, :change], render(scene, change), atol=0.05)
    at, then = (render(one, change + 1, change)[:, change] for one in (turned, scene))
    assert torch.allclose(at, then, atol=0.05)  # nothing jumps where the motion changes


@given(st.integers(0, 10**6))
def test_swapped_captions_are_wrong_in_one_word(seed):
    scene = Mix(WORLD).scene(Random(seed))
    captions = swapped(scene, WORLD, Random(seed))
    assert captions["right"] == caption(scene)
    right, kind = captions["right"].split(), captions["kind"].split()
    assert [a for a, b in zip(right, kind, strict=True) if a != b] == [scene.kind]
    rest = captions["right"].replace(MOTIONS[scene.motion][0], "*")
    assert captions["motion"] != captions["right"]
    assert any(captions["motion"].replace(both[0], "*") == rest for both in MOTIONS.values())
