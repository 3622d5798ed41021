"""What weights of 8 bits change: one forward, and whole videos, of the bundled models, against all in float32.

python -m benchmarks.eight_bit prints for each model, --dtype and --weights: bytes of the weights, the relative error of
a forward of one chunk (norm of the difference over norm), PSNR and SSIM of videos of the same prompts and noise with
their 95 % confidence intervals, and the CPU time of these.
"""

import argparse
import sys
from random import Random

import torch
from torch import Tensor

from benchmarks.rendered import Rendered, render
from flowcache.bench.pictures import psnr, ssim
from flowcache.bench.shapes import caption, sample_scene, world_of
from flowcache.bench.statistics import interval, markdown
from flowcache.families.registry import bundled, load_model
from flowcache.models.attention import attention
from flowcache.models.base import LoadedModel
from flowcache.models.eight_bit import EightBit

WAYS = [(dtype, weights) for dtype in ("fp32", "bf16") for weights in ("auto", "int8", "fp8")]
OFF = {"name": "off"}


@torch.inference_mode()
def velocity(model: LoadedModel, prompt: str, time: float = 400.0) -> Tensor:
    """Of a chunk on its own, of the same noise for all."""
    transformer, spec = model.transformer, model.spec
    shape = spec.chunk, spec.height // spec.space_stride, spec.width // spec.space_stride
    latents = torch.randn(1, spec.channels, *shape, generator=torch.Generator().manual_seed(1)).to(transformer.dtype)
    grid = transformer.grid(latents)
    conditioning = transformer.condition(torch.full((1, 1), time), grid, spec.fps)
    text, rope = transformer.text(model.text.encode(prompt)), transformer.rope(grid)
    attend = lambda layer, q, k, v: attention(q, k, v)  # noqa: E731
    tokens = transformer.transform(transformer.embed(latents), conditioning, [text], [rope], attend)
    return transformer.project(tokens, conditioning, grid)


def error(found: Tensor, right: Tensor) -> float:
    return ((found.float() - right.float()).norm() / right.float().norm()).item()


def held(model: LoadedModel) -> int:
    """Bytes of the transformer's parameters."""
    parameters = [parameter.data for parameter in model.transformer.parameters()]
    return sum(x.packed.nbytes + x.scale.nbytes if isinstance(x, EightBit) else x.nbytes for x in parameters)


def videos(model: LoadedModel, n: int) -> list[Rendered]:
    """Of the first n prompts, each with noise of its own."""
    rng, world = Random(0), world_of(model.spec.vocabulary)
    prompts = [caption(sample_scene(rng, world=world)) for _ in range(n)]
    return [render(model, prompt, seed, OFF, model.spec.steps) for seed, prompt in enumerate(prompts)]


def compare(name: str, n: int) -> list[list[str]]:
    right = load_model(name, dtype="fp32")
    prompt = " ".join(right.spec.vocabulary[:4])
    shown, exact = videos(right, n), velocity(right, prompt)
    rows = []
    for dtype, weights in WAYS:
        model = load_model(name, dtype=dtype, weights=weights)
        found = shown if (dtype, weights) == WAYS[0] else videos(model, n)
        pairs = list(zip(found, shown, strict=True))
        seconds = sum(ours.seconds for ours in found) / sum(theirs.seconds for theirs in shown)
        quality = [
            "{:.2f} ({:.2f} to {:.2f})".format(*interval([psnr(a.frames, b.frames) for a, b in pairs])),
            "{:.4f} ({:.4f} to {:.4f})".format(*interval([ssim(a.frames, b.frames) for a, b in pairs])),
        ]
        forward = f"{error(velocity(model, prompt), exact):.4f}"
        same = ["-", "-", "-"] if found is shown else [forward, *quality]
        rows.append([name, dtype, weights, f"{held(model) / 2**20:.2f}", *same, f"{seconds:.2f}"])
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=8, help="prompts")
    parser.add_argument("--models", nargs="+", choices=bundled(), default=bundled())
    given = parser.parse_args()
    torch.set_num_threads(1)
    head = ["model", "dtype", "weights", "MiB", "error of a forward", "PSNR, dB", "SSIM", "CPU time"]
    print(markdown(head, [row for name in given.models for row in compare(name, given.n)]))


if __name__ == "__main__":
    main()
