"""K/V compression: scores and kept tokens against the official functions."""

import pytest
import torch

from flowcache.cache.kv_select import Compression, importance, redundancy, top


@pytest.mark.golden("skyreels_compress")
def test_scores_and_selection(golden, case):
    data = golden.tensors("skyreels_compress")
    expected = {key.split(".")[1]: value for key, value in data.items() if key.startswith(f"{case['name']}.")}
    keys, queries, clean = expected["k"], expected["q"], expected["k"][: case["clean"]]
    compression = Compression(case["mix_lambda"], case["kernel"], case["frame_size"] or 1)
    torch.testing.assert_close(importance(queries, clean), expected["attn_importance"], atol=1e-6, rtol=0)
    torch.testing.assert_close(redundancy(clean), expected["sim"], atol=2e-8, rtol=0)
    score = compression.score(queries, clean)
    torch.testing.assert_close(score, expected["score"], atol=1e-6, rtol=0)
    if case["ties_inside_topk"]:
        return
    chosen = top(expected["score"], case["budget"], compression.group)
    assert torch.equal(chosen, expected["idx"].long())
    ours = compression.select(queries, clean, case["budget"])
    assert torch.equal(ours.sort(0).values, expected["idx"].long().sort(0).values)
    for name in ("k", "v"):
        if f"{name}_out" in expected:
            whole = expected[name]
            kept = whole.gather(0, chosen[..., None].expand(-1, -1, whole.shape[-1]))
            assert torch.equal(torch.cat([kept, whole[len(clean) :]]), expected[f"{name}_out"])
    assert len(keys) == case["L"]
