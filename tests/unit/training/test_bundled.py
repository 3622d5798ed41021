"""What is said of the bundled checkpoints holds for their files."""

import json
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest

from benchmarks.judge import render_video
from flowcache.bench.judge import count, judge, verdict_of
from flowcache.bench.shapes import caption, sample_scene, vocabulary, world_of
from flowcache.cache.reuse import Reuse
from flowcache.families.registry import load_model
from flowcache.models.text import load_tokenizer
from training.calibrate import PRESETS, PUBLISHED, calibrate, computed_steps, record, signals
from training.codec import round_trip
from training.families import FAMILIES


@pytest.fixture(scope="module", params=["tiny-skyreels", "tiny-magi"])
def model(request):
    return load_model(request.param)


@pytest.fixture(scope="module")
def seen(model):
    """The signals that reuse is decided by: of MAGI-1 those of a run's chunks."""
    return [signals(model)] if FAMILIES[model.spec.family].by_timestep else record(model, 1, 5).signals


def test_presets_can_be_made_anew(model, tmp_path):
    """Also where a guidance pass is not run at every step."""
    folder = Path(shutil.copytree(model.spec.path, tmp_path / "own", ignore=shutil.ignore_patterns("calibration.json")))
    before = json.loads((folder / "flowcache.json").read_text())["reuse"]
    calibrate(folder, 1, 5)
    after = json.loads((folder / "flowcache.json").read_text())["reuse"]
    assert after.keys() == before.keys() and all(each["threshold"] > 0 for each in after.values())


def test_small_and_with_a_card(model):
    folder = Path(model.spec.path)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert len((folder / "README.md").read_text()) > 1000


def test_lengths_agree(model):
    spec, family = model.spec, FAMILIES[model.spec.family]
    assert spec.frames == {"tiny-skyreels": 57, "tiny-magi": 72}[spec.name]
    chunks, rest = divmod(spec.frames - spec.first_chunk_frames, spec.chunk_frames)
    assert rest == 0 and 1 + chunks <= spec.window // spec.chunk
    assert spec.overlap % spec.chunk == 0 and spec.window % spec.chunk == 0
    assert spec.causal == family.causal == model.codec.causal
    assert spec.channels == model.codec.channels == family.spec["channels"]
    assert {key: value for key, value in family.spec.items() if key in ("name", "chunk", "steps", "guidance")} == {
        key: getattr(spec, key) for key in ("name", "chunk", "steps", "guidance")
    }


def test_every_caption_is_understood_word_by_word(model):
    rng, tokenizer = Random(0), load_tokenizer(Path(model.spec.path) / "tokenizer")
    world = world_of(model.spec.vocabulary)
    assert vocabulary(world) == list(model.spec.vocabulary)  # nothing is half known
    for _ in range(200):
        words = caption(sample_scene(rng, world=world), rng)
        assert tokenizer.unk_token_id not in tokenizer(words).input_ids
        assert set(words.split()) <= set(model.spec.vocabulary)


def test_codec_keeps_what_matters(model):
    """In dB, of all kinds that the model knows."""
    world = world_of(model.spec.vocabulary)
    assert round_trip(model.codec, videos=12, world=world) > {"tiny-skyreels": 33, "tiny-magi": 30}[model.spec.name]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_presets_skip_what_they_should(model, seen, preset):
    steps = model.spec.steps
    for name in {preset.name, f"{preset.name}{PUBLISHED}"} & set(model.spec.reuse):
        values = model.spec.reuse[name]
        reuse = Reuse(values["threshold"], values["ret_steps"], tuple(values["coefficients"]))
        computed = [computed_steps(reuse, one) for one in seen]
        assert all(set(range(preset.warmup_steps)) | {steps - 1} <= set(one) for one in computed)
        share = 1 - np.mean([len(one) for one in computed]) / steps
        near = 1.5 if len(seen) == 1 else 3  # steps; tokens differ by prompt
        assert share == pytest.approx(preset.skipped, abs=near / steps)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_presets_hold_where_rounding_differs(preset):
    """SkyReels-V2's decisions follow from timesteps alone: spread over the run, and far from any threshold."""
    model = load_model("tiny-skyreels")
    values, seen = model.spec.reuse[preset.name], signals(model)
    reuse = Reuse(values["threshold"], values["ret_steps"], tuple(values["coefficients"]))
    computed = computed_steps(reuse, seen)
    gaps = [b - a for a, b in zip(computed, computed[1:], strict=False)]
    assert max(gaps) <= 6
    for factor in (0.999, 1.001):
        near = Reuse(reuse.threshold * factor, reuse.warmup_steps, reuse.coefficients)
        assert computed_steps(near, seen) == computed


@pytest.mark.slow
def test_videos_show_what_captions_say(model):
    rng = Random(1)
    scenes = [sample_scene(rng, world=world_of(model.spec.vocabulary)) for _ in range(8)]
    videos = [render_video(model, [scene], seed, {"name": "off"})[0] for seed, scene in enumerate(scenes)]
    right = count([(verdict_of(scene), judge(video)) for scene, video in zip(scenes, videos, strict=True)])
    assert right["background"] == right["colour"] == 8 and right["kind"] >= 7 and right["motion"] >= 7
