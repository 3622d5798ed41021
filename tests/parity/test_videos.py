"""Whole videos, window after window, against the official SkyReels-V2 pipeline, with a codec that loses something.

What random settings found (docs/testing.md): overlaps larger than what a window adds, TeaCache's counter where it is
odd or a window is short, pictures without chunks. Noise is as `worker.noise` draws it for the case's seed.
"""

import pytest

from tests.parity.given import Given
from tests.parity.skyreels_runs import TOLERANCE, compare_calls, policy_of
from tests.parity.skyreels_videos import rendered, request_of


@pytest.mark.golden("skyreels_videos", "cases")
def test_a_whole_video(golden, case):
    data, name = golden.tensors("skyreels_videos"), case["name"]
    with Given(f"case {name}", case) as said:
        settings, start, seed = (said[key] for key in ("settings", "start", "seed"))
        run = {key: said[key] for key in ("name", "kind", "causal_attention", "tea", "args")}
        said.skip("calls", "calls_cols")
    transformer = golden.model(settings["num_heads"], settings["inject_sample_info"])
    own = {key.removeprefix(f"{name}."): value for key, value in data.items() if key.startswith(f"{name}.in.")}
    request, policy, seen = request_of(settings, start, seed), policy_of(run, settings), []
    windows = list(rendered(transformer, data | own, request, policy, seen))
    for number, latents in enumerate(windows):
        expected = data[f"{name}.x0_seg{number}"]
        assert (latents - expected[:, -latents.shape[1] :]).abs().max() <= TOLERANCE
    assert f"{name}.x0_seg{len(windows)}" not in data
    compare_calls(case, seen)
