"""CPU time of one window with forwards packed into batches, against one by one: python -m benchmarks.packing

Both sides in one run, in turn, by the bundled models; the ratio is what counts. The latents must be the same bits.
"""

import argparse
import time
from statistics import median
from unittest import mock

import torch
from torch import Tensor

from flowcache.families.registry import bundled, load_model
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel
from flowcache.records import RenderRequest, Shot
from flowcache.sampling import executor
from flowcache.worker.renderer import SegmentRenderer

PROMPT = "a red circle moving right on a blue background"


def window(model: LoadedModel, policy: str) -> tuple[float, Tensor]:
    """CPU seconds of a window of the model's length, and its latents."""
    spec = model.spec
    frames = spec.video_frames(spec.window)
    request = RenderRequest(
        id="window", shots=(Shot(PROMPT, frames),), width=spec.width, height=spec.height, fps=spec.fps, seed=1,
        guidance=spec.guidance, steps=spec.steps, model=spec.name, policy={"name": policy},
    )  # fmt: skip
    renderer = SegmentRenderer(model, request, plan(request, spec)[0], conditioning=None)
    begin = time.process_time()
    latents = torch.cat([chunk.latents for chunk in renderer.finished()], dim=1)
    return time.process_time() - begin, latents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("| model | policy | packed, CPU s | one by one, CPU s | ratio | same bits |\n|---|---|---|---|---|---|")
    for name in bundled():
        model = load_model(name)
        for policy in ("off", "flowcache"):
            packed, alone, same = [], [], True
            for _ in range(repeats):
                with mock.patch.object(executor, "PACKED_CHUNK", 0):
                    seconds, expected = window(model, policy)
                alone.append(seconds)
                seconds, latents = window(model, policy)
                packed.append(seconds)
                same = same and torch.equal(latents, expected)
            ratio = median(a / b for a, b in zip(packed, alone, strict=True))
            row = f"{median(packed):.2f} | {median(alone):.2f} | {ratio:.2f} | {'yes' if same else 'NO'}"
            print(f"| {name} | {policy} | {row} |")


if __name__ == "__main__":
    main()
