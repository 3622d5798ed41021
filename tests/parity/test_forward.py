"""The transformer against the official one."""

import pytest
import torch


@pytest.mark.golden("skyreels_forward", "cases")
def test_forward(golden, case):
    data = golden.tensors("skyreels_forward")
    model = golden.model(case["num_heads"], case["inject_sample_info"])
    rows, frames = case["batch"], data["x"].shape[2]
    t = data["t"][rows] if case["t"] == "t" else torch.tensor(case["t"])[:, None].expand(-1, frames)
    fps = torch.tensor(case["fps"])[:, None].expand(-1, frames)
    if "QUIRK" in case["name"]:  # the official code mixes up rows and frames where the frame rates differ
        fps = torch.tensor(case["fps"]).repeat(frames).view(len(rows), frames)
    # At block size 1 the official code masks nothing.
    chunk = case["causal_block_size"] if case["causal_block_size"] > 1 else 0
    with torch.inference_mode():
        out = model(data["x"][rows], t, data["ctx"][rows], fps, chunk=chunk)
    torch.testing.assert_close(out, data[f"out_{case['name']}"], atol=2e-5, rtol=0)


@pytest.mark.golden("skyreels_forward", "cases", only=r"info1_blk[15]")
def test_intermediates(golden, case):
    """The first place to look when `test_forward` fails."""
    data = golden.tensors("skyreels_forward")
    model = golden.model(case["num_heads"], case["inject_sample_info"])
    seen = {}

    def keep(module, key):
        module.register_forward_hook(lambda module, given, out: seen.__setitem__(key, out))

    for i, block in enumerate(model.blocks):
        keep(block, f"block{i}")
        keep(block.self_attn.o, f"block{i}_self_attn")
        keep(block.cross_attn.o, f"block{i}_cross_attn")
    keep(model.patch_embedding, "patch")
    keep(model.text_embedding, "text")
    chunk = case["causal_block_size"]
    with torch.inference_mode():
        t, fps = data["t"][:1], torch.tensor(case["fps"])[:, None].expand(-1, data["t"].shape[1])
        model(data["x"][:1], t, data["ctx"][:1], fps, chunk=chunk if chunk > 1 else 0)
    known = {key: data[f"mid_blk{chunk}_{key}"] for key in seen if f"mid_blk{chunk}_{key}" in data}
    assert len(known) >= 3 * len(model.blocks)
    for key, expected in known.items():
        torch.testing.assert_close(seen[key], expected, atol=2e-5, rtol=0, msg=lambda m, key=key: f"{key}: {m}")
