"""What is said of the bundled checkpoint holds for its files."""

from pathlib import Path
from random import Random

import pytest

from benchmarks.judge import count, judge, render_video, verdict_of
from flowcache.cache.reuse import Reuse
from flowcache.models.registry import load_model
from flowcache.models.text import load_tokenizer
from training.calibrate import PRESETS, computed_steps, signals
from training.codec import round_trip
from training.export import SPEC
from training.shapes import caption, sample_scene


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-skyreels")


def test_small_and_with_a_card(model):
    folder = Path(model.spec.path)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert len((folder / "README.md").read_text()) > 1000


def test_lengths_agree(model):
    spec = model.spec
    assert spec.first_chunk_frames + (spec.window // spec.chunk - 1) * spec.chunk_frames == spec.frames == 57
    assert spec.overlap % spec.chunk == 0 and spec.window % spec.chunk == 0
    assert model.transformer.config.in_channels == spec.channels == model.codec.channels == SPEC["channels"]


def test_every_caption_is_understood_word_by_word(model):
    rng, tokenizer = Random(0), load_tokenizer(Path(model.spec.path) / "tokenizer")
    for _ in range(200):
        words = caption(sample_scene(rng), rng)
        assert tokenizer.unk_token_id not in tokenizer(words).input_ids
        assert set(words.split()) <= set(model.spec.vocabulary)


def test_codec_keeps_what_matters(model):
    assert round_trip(model.codec, videos=12) > 30


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_presets_skip_what_they_should(model, preset):
    values = model.spec.reuse[preset.name]
    reuse = Reuse(values["threshold"], values["ret_steps"], tuple(values["coefficients"]))
    steps = model.spec.steps
    computed = computed_steps(reuse, signals(model))
    assert set(range(preset.ret_steps)) | {steps - 1} <= set(computed)
    assert 1 - len(computed) / steps == pytest.approx(preset.skipped, abs=1 / steps)
    gaps = [b - a for a, b in zip(computed, computed[1:], strict=False)]
    assert max(gaps) <= 6  # spread over the run, not bunched
    for factor in (0.999, 1.001):  # far from where rounding would decide
        near = Reuse(reuse.threshold * factor, reuse.ret_steps, reuse.coefficients)
        assert computed_steps(near, signals(model)) == computed


@pytest.mark.slow
def test_videos_show_what_captions_say(model):
    rng = Random(1)
    scenes = [sample_scene(rng) for _ in range(8)]
    videos = [render_video(model, [scene], seed, {"name": "off"})[0] for seed, scene in enumerate(scenes)]
    right = count([(verdict_of(scene), judge(video)) for scene, video in zip(scenes, videos, strict=True)])
    assert right["background"] == 8 and right["colour"] >= 7 and right["motion"] >= 6
