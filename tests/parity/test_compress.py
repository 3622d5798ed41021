"""K/V compression: scores and kept tokens against the official functions."""

import pytest
import torch

from flowcache.cache.kv_select import Compression, importance, redundancy, top
from tests.parity.given import Given


@pytest.mark.golden("skyreels_compress")
def test_scores_and_selection(golden, case):
    data = golden.tensors("skyreels_compress")
    expected = {key.split(".")[1]: value for key, value in data.items() if key.startswith(f"{case['name']}.")}
    with Given(case["name"], case) as said:
        keys, queries, clean, budget = expected["k"], expected["q"], expected["k"][: said["clean"]], said["budget"]
        compression = Compression(said["mix_lambda"], said["kernel"], said["frame_size"] or 1)
        assert said["fn"] in ("token", "frame") and (said["fn"] == "token") == (compression.group == 1)
        assert (len(keys), queries.shape[1], keys.shape[1]) == (said["L"], said["q_heads"], said["kv_heads"])
        said.skip("name", "score_min_gap", "linear_sim_max_diff", "topk_boundary_gap", "ties_inside_topk")
    torch.testing.assert_close(importance(queries, clean), expected["attn_importance"], atol=1e-6, rtol=0)
    torch.testing.assert_close(redundancy(clean), expected["sim"], atol=2e-8, rtol=0)
    score = compression.score(queries, clean)
    torch.testing.assert_close(score, expected["score"], atol=1e-6, rtol=0)
    if case["ties_inside_topk"]:
        return
    chosen = top(expected["score"], budget, compression.group)
    assert torch.equal(chosen, expected["idx"].long())
    ours = compression.select(queries, clean, budget)
    assert torch.equal(ours.sort(0).values, expected["idx"].long().sort(0).values)
    for name in ("k", "v"):
        if f"{name}_out" in expected:
            whole = expected[name]
            kept = whole.gather(0, chosen[..., None].expand(-1, -1, whole.shape[-1]))
            assert torch.equal(torch.cat([kept, whole[len(clean) :]]), expected[f"{name}_out"])
