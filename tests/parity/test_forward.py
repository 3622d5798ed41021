"""The transformer against the official one."""

import pytest
import torch

from tests.parity.given import Given


@pytest.mark.golden("skyreels_forward", "cases")
def test_forward(golden, case):
    data = golden.tensors("skyreels_forward")
    with Given(case["name"], case) as said:
        said.skip("out_absmax", "diffusers_max_abs_diff")
        name, rows, of_frames, block = (said[key] for key in ("name", "batch", "t", "causal_block_size"))
        model, fps = golden.model(said["num_heads"], said["inject_sample_info"]), torch.tensor(said["fps"])
    frames = data["x"].shape[2]
    if of_frames == "t":  # the official code mixes up rows and frames, which shows where the frame rates differ
        t, fps = data["t"][rows], fps.repeat(frames).view(len(rows), frames)
    else:
        t, fps = (values[:, None].expand(-1, frames) for values in (torch.tensor(of_frames), fps))
    # At block size 1 the official code masks nothing.
    with torch.inference_mode():
        out = model(data["x"][rows], t, data["ctx"][rows], fps, chunk=block if block > 1 else 0)
    torch.testing.assert_close(out, data[f"out_{name}"], atol=2e-5, rtol=0)


@pytest.mark.golden("skyreels_forward", "cases", only="info1_blk1")
def test_frames_that_look_back_alone(golden, case):
    """`set_ar_attention(1)`, which the cases do not list."""
    data = golden.tensors("skyreels_forward")
    model = golden.model(case["num_heads"], case["inject_sample_info"])
    t, fps = data["t"][:1], torch.tensor(case["fps"])[:, None].expand(-1, data["t"].shape[1])
    with torch.inference_mode():
        out = model(data["x"][:1], t, data["ctx"][:1], fps, chunk=1)
    torch.testing.assert_close(out, data["out_info1_ARblk1_framecausal"], atol=2e-5, rtol=0)


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
