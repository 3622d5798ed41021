"""Rows for MAGI-1: what it samples with, its policies and lengths."""

from dataclasses import replace

import pytest

from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.settings import settings_of
from flowcache.inputs.manifest import validate
from flowcache.inputs.schema import RowDefaults
from flowcache.records import MediaInfo, ModelSpec

BASE = ModelSpec(
    "base", "magi", "p", "d", chunk=6, window=60, overlap=24, channels=16, causal=False,
    steps=64, guidance=7.5, frames=96, reuse={"slow": {"threshold": 0.01, "ret_steps": 5, "coefficients": [1.0, 0.0]}},
    pipeline=Pipeline(),
)  # fmt: skip
DISTILLED = replace(BASE, name="distilled", guidance=1.0, pipeline=Pipeline(passes=1, distilled=True))
SKYREELS = ModelSpec("sky", "skyreels", "p", "d", chunk=5, window=25, overlap=5, channels=16)
SPECS = {spec.name: spec for spec in (BASE, DISTILLED, SKYREELS)}


def check(**fields):
    row = {"prompt": "a", "model": "base", "width": 720, "height": 720} | fields
    video = MediaInfo("v.mp4", 64, 64, 30, 24.0, 29 / 24)
    good, problems, _ = validate([(1, row)], "m", SPECS.__getitem__, RowDefaults(), lambda url, kind: video)
    return good[0] if good else "\n".join(map(str, problems))


def test_the_lag_follows_from_the_steps():
    assert settings_of(check(), BASE).lag == 16 and settings_of(check(steps=8), BASE).lag == 2
    assert settings_of(check(steps=10, ar_step=3), BASE).lag == 3
    assert settings_of(check(guidance=5.0), BASE).guidance == 5.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 10}, "steps: got 10; accepted: multiples of 4, which are the chunks in flight"),
        ({"model": "distilled", "guidance": 2.0}, "guidance: got 2; accepted: 1, since distilled is distilled"),
        ({"negative_prompt": "blurry"}, "negative_prompt: does not go with base"),
        ({"model": "sky", "width": 960, "height": 544, "segment": "all"}, "segment: does not go with sky"),
        ({"shift": 5.0}, "shift: does not go with base; accepted: none"),
        ({"causal_block_size": 7, "overlap_history": 3}, "causal_block_size: does not go with base; accepted: none"),
        ({"segment": "some"}, "segment: got 'some'; accepted: 'all'"),
        (
            {"policy": "teacache"},
            "policy.name: got 'teacache'; accepted for models of family magi: off, paper, flowcache",
        ),
        ({"policy": {"name": "paper", "velocity": True}}, "policy.velocity: does not go with name 'paper'"),
        ({"policy": {"name": "flowcache", "renoise": True}}, "policy.renoise: does not go with"),
        (
            {
                "policy": {
                    "name": "paper",
                    "kv": {"keep": "compressed", "chunks": 1, "by": "frame", "weighting": "even"},
                }
            },
            "policy.kv.weighting: does not go with by 'frame'",
        ),
        (
            {"shots": [{"prompt": "a", "frames": 25}, {"prompt": "b", "frames": 24}]},
            "shots[0].frames: got 25; nearest 24",
        ),
        ({"frames": 97, "end_image": "x.png"}, "frames: got 97; nearest 96 or 120"),
    ],
)
def test_what_does_not_go(fields, message):
    if "shots" in fields:
        fields = fields | {"prompt": None}
    assert message in check(**fields)


def test_what_goes():
    assert check(frames=97).frames == 97 and check(seconds=0.1).frames == 2
    joined = check(prompt=None, shots=[{"prompt": "a", "frames": 24}, {"prompt": "b", "frames": 25}], segment="all")
    assert joined.segment == "all" and joined.frames == 49
    mends = {"velocity": False, "last_step": False, "refresh": False, "near_clean": False}
    kv = {"keep": "compressed", "chunks": 1, "queries": "frame", "weighting": "polynomial", "power": 2}
    assert check(policy={"name": "flowcache", "kv": kv, **mends}).policy["kv"]["power"] == 2
    assert check(video="v.mp4").video == "v.mp4"  # 30 frames: one chunk of history
