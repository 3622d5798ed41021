"""Two ranks decode tiles of published checkpoints together, from the command line."""

import io

import numpy as np
import pytest

from tests.e2e.media import decoded
from tests.e2e.rows import row
from tests.published import tiny_parts, write_official
from tests.published_magi import write_magi


@pytest.mark.slow
def test_tiles_of_two_ranks_are_those_of_one(render, flowcache, tmp_path):
    """Up to what denoising by two ranks changes: SkyReels in two unequal tiles, two windows; MAGI in four."""
    sky = write_official(tiny_parts(), tmp_path / "SkyReels-V2-DF-tiny-540P")
    magi = write_magi(tmp_path / "magi")
    rows = [
        row("sky", frames=97 + 20, width=288, height=32, model=str(sky)),
        row("magi", frames=48, steps=8, width=256, height=64, model=str(magi)),
    ]
    for gang in "12":
        made = render(rows, "--gang", gang, "--vae-tiling", "on", to=tmp_path / gang)
        assert made.code == 0 and made.json["rendered"] == 6 + 2, made.err
        assert flowcache("verify", tmp_path / gang, "--json").json["sound"]
    one, two = (sorted((tmp_path / gang / "media").glob("*/*.m4s")) for gang in "12")
    assert len(one) == 8
    for files in zip(one, two, strict=True):
        videos = [decoded(io.BytesIO((file.parent / "init.mp4").read_bytes() + file.read_bytes())) for file in files]
        for (_, a), (_, b) in zip(*videos, strict=True):
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 2
