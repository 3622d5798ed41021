"""What a row may ask for beside its prompt gives the same pixels, whether one rank renders it or two."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.same import compare
from flowcache.storage.objects.store import Store
from tests.e2e.rows import row
from tests.published_magi import TEXT_DIM, write_magi


@pytest.fixture
def same(render, tmp_path):
    """same(rows, *options): they are rendered twice, and nothing of them differs."""

    def check(rows: list[dict], *options) -> None:
        for ranks in "12":
            made = render(rows, "--gang", ranks, *options, to=tmp_path / ranks)
            assert made.code == 0, made.out
        lines, alike = compare(*(Store(str(tmp_path / ranks)) for ranks in "12"))
        assert alike and len(lines) == len(rows), lines

    return check


@pytest.mark.slow
def test_skyreels_fields(same, render, flowcache, tmp_path):
    wide = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 96, 3), dtype=np.uint8)).save(wide)
    assert render([row("clip", frames=33)], to=tmp_path / "first").code == 0
    assert flowcache("export", tmp_path / "first", "--to", tmp_path).code == 0
    clip = str(tmp_path / "clip.mp4")
    windows = {"base_num_frames": 21, "overlap_history": 9, "causal_block_size": 3}
    same([
        row("sampled", frames=33, negative_prompt="a blue square", shift=5.0, addnoise_condition=60, **windows),
        row("exact", frames=33, addnoise_condition=0, policy="flowcache", **windows),
        row("frames", frames=9, causal_block_size=1, ar_step=0, policy="dense", image=str(wide), fit="stretch"),
        row("padded", image=str(wide), fit="pad"),
        row("cropped", image=str(wide), fit="crop", policy="paper:fast", steps=8),
        row("from-the-start", frames=12, video=clip, video_from="start"),
        row("from-the-end", frames=12, video=clip, video_from="end"),
    ])  # fmt: skip


def guided(config: Path) -> None:
    """A base model, with three passes, and the tokens that a negative prompt needs."""
    told = json.loads(config.read_text())
    told["engine_config"]["distill"], told["runtime_config"]["cfg_number"] = False, 3
    config.write_text(json.dumps(told))
    root = config.parents[2]
    distilled = root / "downloads" / "tiny" / "inference_weight.distill"
    distilled.rename(distilled.with_name("inference_weight"))
    rows = np.random.default_rng(0).normal(size=(102, TEXT_DIM))
    tokens = {"other_tokens": rows[:100], "caption_token": rows[100:101], "logo_token": rows[101:]}
    np.savez(root / "example" / "assets" / "special_tokens.npz", **tokens)


@pytest.mark.slow
@pytest.mark.parametrize("distilled", [True, False])
def test_magi_fields(same, tmp_path, distilled):
    config = write_magi(tmp_path / "magi")
    picture = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 96, 3), dtype=np.uint8)).save(picture)
    row = {"prompt": "a red circle", "frames": 48}
    rows = [
        row | {"id": "marked", "special_tokens": "static, hq, duration", "policy": "paper"},
        row | {"id": "padded", "image": str(picture), "fit": "pad"},
        row | {"id": "unmarked", "special_tokens": "none"},
    ]
    if distilled:
        rows += [row | {"id": "scaled", "prev_chunks_scale": 0.5}]
    else:
        guided(config)
        rows += [row | {"id": "negative", "negative_prompt": "official", "guidance": 5}]
    same(rows, "--model", config)
