"""Rows for MAGI-1: what it samples with, its policies and lengths."""

import json
from dataclasses import replace

import pytest

from flowcache.families.magi import requests
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.settings import settings_of
from flowcache.inputs.job import load_job
from flowcache.inputs.lines import Line
from flowcache.inputs.manifest import validate
from flowcache.inputs.schema import RowDefaults
from flowcache.records import MediaInfo, ModelSpec, RenderRequest
from flowcache.storage.runs import spec_hash

BASE = ModelSpec(
    "base", "magi", "p", "d", chunk=6, window=60, overlap=24, channels=16, causal=False,
    steps=64, guidance=7.5, frames=96, reuse={"slow": {"threshold": 0.01, "ret_steps": 5, "coefficients": [1.0, 0.0]}},
    pipeline=Pipeline(),
)  # fmt: skip
DISTILLED = replace(BASE, name="distilled", guidance=1.0, pipeline=Pipeline(passes=1, distilled=True))
BARE = replace(BASE, name="bare", path="nowhere")
SKYREELS = ModelSpec("sky", "skyreels", "p", "d", chunk=5, window=25, overlap=5, channels=16)
SPECS = {spec.name: spec for spec in (BASE, DISTILLED, BARE, SKYREELS)}


@pytest.fixture(autouse=True)
def tokens(monkeypatch):
    """Checkpoints that are nowhere have all tokens, but for one."""
    arrays = {"p": ("other_tokens", "caption_token", "logo_token")}
    monkeypatch.setattr(requests, "token_arrays", lambda path: arrays.get(path, ()))


def check(defaults=None, **fields):
    row = {"prompt": "a", "model": "base", "width": 720, "height": 720} | fields
    video = MediaInfo("v.mp4", 64, 64, 30, 24.0, 29 / 24)
    good, problems, _ = validate(
        [Line(1, row)], "m", SPECS.__getitem__, defaults or RowDefaults(), lambda *media: video
    )
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
        (
            {"negative_prompt": "blurry"},
            "negative_prompt: does not go with base, which has no such text; accepted: 'of",
        ),
        ({"negative_prompt": "official", "model": "bare"}, "negative_prompt: does not go with bare, whose special to"),
        ({"special_tokens": ["hq"], "model": "bare"}, "tokens lack other_tokens; accepted: none"),
        ({"special_tokens": ["hq", "4k"]}, "special_tokens: got '4k'; accepted: static, dynamic, borderness, hq, 3d"),
        ({"special_tokens": ["hq", 3]}, "special_tokens[1]: got 3; accepted: a list of names"),
        ({"special_tokens": {"hq": True}}, "special_tokens: got an object of 1 entry; accepted: a list of names"),
        ({"special_tokens": "hq", "model": "sky", "width": 960, "height": 544}, "special_tokens: does not go with sky"),
        ({"prev_chunks_scale": 0.5}, "prev_chunks_scale: does not go with base; accepted: none, since base is not dis"),
        ({"prev_chunks_scale": -1, "model": "distilled"}, "prev_chunks_scale: got -1; accepted: a number from 0 to 10"),
        ({"prev_chunks_scale": 1, "model": "sky", "width": 960, "height": 544}, "prev_chunks_scale: does not go with"),
        ({"model": "sky", "width": 960, "height": 544, "segment": "all"}, "segment: does not go with sky"),
        ({"shift": 5.0}, "shift: does not go with base; accepted: none"),
        ({"solver": "corrected"}, "solver: does not go with base; accepted: none"),
        ({"causal_block_size": 7, "overlap_history": 3}, "causal_block_size: does not go with base; accepted: none"),
        ({"segment": "some"}, "segment: got 'some'; accepted: 'all'"),
        (
            {"policy": "teacache"},
            "policy.name: got 'teacache'; accepted for models of family magi: off, paper, flowcache, paper-mended",
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


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["hq", "2d"], ("2d", "hq")),
        ("2d, hq", ("2d", "hq")),
        (["2d", "hq", "2d"], ("2d", "hq")),
        ([], ()),
        ("none", ()),
        (None, None),
    ],
)
def test_special_tokens_are_the_same_in_any_order(given, expected):
    assert check(special_tokens=given).special_tokens == expected


def test_a_job_may_say_them_for_all_rows(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("manifest: m\noutput: o\ndefaults: {special_tokens: [static, hq], prev_chunks_scale: 0.5}\n")
    request = check(load_job(job).row_defaults(), model="distilled")
    assert (request.special_tokens, request.prev_chunks_scale) == (("hq", "static"), 0.5)


def test_a_row_that_says_nothing_new_is_the_request_that_it_was():
    """Ids, seeds and runs of rows without the fields that came later, as they were before those came."""
    plain = check()
    assert (plain.id, plain.seed) == ("v-00430335dc51a018", 961867882)
    assert spec_hash([plain], {}, {}).startswith("dbfb1166eca69114")
    assert not {"special_tokens", "prev_chunks_scale"} & plain.to_dict().keys()


@pytest.mark.parametrize(
    "fields",
    [
        {"special_tokens": ["static"]},
        {"special_tokens": []},
        {"negative_prompt": "official"},
        {"prev_chunks_scale": 0.6, "model": "distilled"},
    ],
)
def test_what_is_said_is_part_of_the_identity(fields):
    """Of the id and the seed, and of the run; and it comes back out of the store."""
    said, plain = check(**fields), check(model=fields.get("model", "base"))
    assert said.id != plain.id and said.seed != plain.seed
    unsaid = replace(said, **{name: getattr(plain, name) for name in fields})
    assert spec_hash([said], {}, {}) != spec_hash([unsaid], {}, {})
    assert RenderRequest.from_dict(json.loads(json.dumps(said.to_dict()))) == said


def test_settings_take_the_scale():
    assert settings_of(check(model="distilled"), DISTILLED).prev_chunks_scale == 0.7
    assert settings_of(check(model="distilled", prev_chunks_scale=0.25), DISTILLED).prev_chunks_scale == 0.25
