"""The error of bfloat16 on the bundled SkyReels model, in our code and in the official one with the same weights.

    PYTHONPATH=CHECKOUT python -m tests.official_skyreels.half --prompts 8

CHECKOUT: of SkyworkAI/SkyReels-V2. Forwards of whole windows, dense, of true videos with noise on them; errors are
norms of the difference to float32 over its norm. On a CPU in place of a GPU: the official program's autocasts are done
as CUDA does them, and both attend by torch's own kernel in bfloat16.
"""

import argparse
from collections.abc import Callable
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flowcache.bench.shapes import caption, render, sample_scene, world_of
from flowcache.bench.statistics import interval
from flowcache.families.registry import load_model
from flowcache.models.base import LoadedModel
from tests.official_skyreels.run import pretend

TIMES = 900, 700, 500, 300, 100, 20


class Autocast(TorchFunctionMode):
    """Linear layers and convolutions in the dtype of the innermost `autocast`, layer norms in float32."""

    dtypes = (torch.bfloat16,)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        dtype = {F.linear: self.dtypes[-1], F.conv3d: self.dtypes[-1], F.layer_norm: torch.float32}.get(func)
        if dtype:
            args, kwargs = torch.utils._pytree.tree_map_only(Tensor, lambda x: x.to(dtype), (args, kwargs or {}))
        return func(*args, **kwargs or {})


class autocast:
    """As `torch.amp.autocast("cuda", dtype=...)` within the official program's own."""

    def __init__(self, device: str, dtype: torch.dtype | None = None, enabled: bool = True):
        self.dtype = dtype

    def __enter__(self) -> None:
        Autocast.dtypes = (*Autocast.dtypes, self.dtype)

    def __exit__(self, *_: object) -> None:
        Autocast.dtypes = Autocast.dtypes[:-1]


def attention(q: Tensor, k: Tensor, v: Tensor, **_: object) -> Tensor:
    """FlashAttention as the official program calls it: [B, S, heads, head_dim]; in bfloat16, given as queries are."""
    q16, k16, v16 = (x.to(torch.bfloat16).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q16, k16, v16).transpose(1, 2).to(q.dtype)


def official_model(ours: LoadedModel) -> torch.nn.Module:
    """All weights in bfloat16."""
    from skyreels_v2_infer.modules import transformer as official

    official.flash_attention, official.amp.autocast = attention, autocast
    config, weights = ours.transformer.config, dict(ours.transformer.state_dict())
    positions = weights.pop("position_embedding").to(torch.bfloat16)  # of bundled models alone
    model = official.WanModel(
        patch_size=config.patch, text_len=config.text_len, in_dim=config.in_channels, dim=config.dim,
        ffn_dim=config.ffn_dim, freq_dim=config.freq_dim, text_dim=config.text_dim, out_dim=config.out_channels,
        num_heads=config.heads, num_layers=config.layers, inject_sample_info=config.inject_sample_info,
    )  # fmt: skip
    model.load_state_dict(weights)
    rows, columns = config.positions
    added = positions.view(rows, columns, -1).permute(2, 0, 1)[:, None]
    model.patch_embedding.register_forward_hook(lambda module, args, x: x + added)
    return model.to(torch.bfloat16).eval()


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=8)
    prompts = parser.parse_args().prompts
    torch.set_num_threads(1)
    pretend()
    whole, half = (load_model("tiny-skyreels", dtype=dtype) for dtype in ("fp32", "bf16"))
    theirs, spec, rng = official_model(whole), whole.spec, Random(1)
    errors: dict[str, list[float]] = {"ours": [], "official": []}
    for seed in range(prompts):
        scene = sample_scene(rng, world=world_of(spec.vocabulary))
        text = whole.text.encode(caption(scene))
        clean = whole.codec.encode(render(scene, spec.frames))[None]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        for time in TIMES:
            latents = clean + (noise - clean) * time / 1000
            times = torch.full((1, clean.shape[2]), float(time))
            exact = whole.transformer(latents, times, text, spec.fps)
            with Autocast():
                official = theirs(latents.to(torch.bfloat16), times, text.to(torch.bfloat16), fps=[1])
            for name, found in (("ours", half.transformer(latents, times, text, spec.fps)), ("official", official)):
                errors[name].append(((found.float() - exact).norm() / exact.norm()).item())
    for name, values in errors.items():
        print("{:9} {:.5f} ({:.5f} to {:.5f})".format(name, *interval(values)))
    ratios = [a / b for a, b in zip(errors["ours"], errors["official"], strict=True)]
    print("ours over official {:.4f} ({:.4f} to {:.4f})".format(*interval(ratios)), f"in {len(ratios)} forwards")


if __name__ == "__main__":
    main()
