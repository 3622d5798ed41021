"""How a video changes from its first quarter to its last, and what it is compared with."""

from random import Random

import numpy as np
import pytest

from flowcache.bench.measured import Judged, drift
from flowcache.bench.names import CONVERGED, KV_ALL, OFF, Entry
from flowcache.bench.shapes import render, sample_scene
from flowcache.worker.renderer import to_uint8


def grey(*levels: int) -> np.ndarray:
    """A frame of each level."""
    return np.array(levels, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)


def test_quarters_are_compared_on_their_own():
    exact, frames = grey(*[10] * 9), grey(10, 10, 90, 90, 90, 90, 90, 13, 13)
    found = drift(frames, exact, None)
    assert found["psnr_first"] == 100 and found["psnr_last"] == pytest.approx(20 * np.log10(255 / 3))
    assert found["colour_drift"] == pytest.approx(3 * 3**0.5)
    assert found["caption_first"] is found["caption_last"] is None
    alone = drift(exact, None, None)
    assert alone["psnr_first"] is alone["psnr_last"] is None and alone["colour_drift"] == 0
    assert drift(grey(1), grey(1), None)["psnr_last"] == 100


def test_captions_are_judged_in_both_quarters():
    scene = sample_scene(Random(3))
    video = to_uint8(render(scene, 40))
    faded = np.concatenate([video[:30], np.zeros_like(video[:10])])
    found = [drift(frames, None, scene) for frames in (video[:10].repeat(4, 0)[:40], faded)]
    assert [each["caption_last"] for each in found][1] is False
    assert drift(video, None, scene).keys() == found[0].keys()


def test_kv_are_compared_with_all_of_them_whatever_the_target():
    targets = {KV_ALL: grey(1), OFF: grey(2), CONVERGED: grey(3)}
    kept, steps = (Judged(Entry(name, "2"), grey(0), targets) for name in ("kv-recent", "paper"))
    assert kept.exact is kept.target("off") is kept.target("converged") is targets[KV_ALL]
    assert steps.exact is steps.target("off") is targets[OFF] and steps.target("converged") is targets[CONVERGED]
    own = [Judged(entry, grey(0), targets) for entry in (KV_ALL, OFF)]
    assert [each.exact for each in own] == [None, None] and own[0].target("converged") is None
    assert own[1].target("off") is None and own[1].target("converged") is targets[CONVERGED]
