"""What decoding beside denoising saves of a segment's wall time: beside and one after the other, in turns, in one run.

python -m benchmarks.overlap renders one window of the bundled model with its own codec, with one that computes longer
and one that waits longer (as uploads do), so that decoding a chunk takes as long as denoising a later one. Predicted
from the times d_i and c_i of denoising and decoding chunk i one after the other, if only the longer of two counted:
d_0 + max(c_0, d_1) + ... + max(c_3, d_4) + c_4. Computing beside needs a free core; waiting does not.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowcache.bench.statistics import markdown
from flowcache.families.registry import load_model
from flowcache.inputs.segments import plan
from flowcache.models.base import Codec, LoadedModel, Share, alone
from flowcache.records import RenderRequest, Shot
from flowcache.worker.renderer import SegmentRenderer, to_uint8


@dataclass(frozen=True)
class Slow:
    """A codec that calls `spend` with each chunk."""

    codec: Codec
    spend: Callable[[], None]

    def encode(self, video: Tensor) -> Tensor:
        return self.codec.encode(video)

    def stream(self, share: Share = alone) -> Callable[[Tensor], Tensor | None]:
        decode = self.codec.stream(share)

        def slowly(latents: Tensor) -> Tensor | None:
            self.spend()
            return decode(latents)

        return slowly


def compute(seconds: float) -> None:
    """So much CPU time of this thread, in torch."""
    square, end = torch.ones(256, 256), time.thread_time() + seconds
    while time.thread_time() < end:
        torch.mm(square, square)


@dataclass(frozen=True)
class Times:
    """Seconds by chunk."""

    denoise: list[float]
    decode: list[float]

    @property
    def apart(self) -> float:
        return sum(self.denoise) + sum(self.decode)

    @property
    def predicted(self) -> float:
        inner = sum(max(pair) for pair in zip(self.decode[:-1], self.denoise[1:], strict=True))
        return self.denoise[0] + inner + self.decode[-1]


def one_after_the_other(model: LoadedModel, request: RenderRequest) -> Times:
    decode, denoising, decoding = model.codec.stream(), [], []
    began = time.perf_counter()
    for chunk in SegmentRenderer(model, request, *plan(request, model.spec), None).finished():
        middle = time.perf_counter()
        to_uint8(decode(chunk.latents))
        denoising.append(middle - began)
        began = time.perf_counter()
        decoding.append(began - middle)
    return Times(denoising, decoding)


def side_by_side(model: LoadedModel, request: RenderRequest) -> float:
    began = time.perf_counter()
    for _ in SegmentRenderer(model, request, *plan(request, model.spec), None).chunks():
        pass
    return time.perf_counter() - began


def compare(name: str, model: LoadedModel, request: RenderRequest, repeats: int) -> list[str]:
    """One row of the table: medians over renders in turns."""
    apart, beside = [], []
    for _ in range(repeats):
        apart.append(one_after_the_other(model, request))
        beside.append(side_by_side(model, request))
    was, now = statistics.median(times.apart for times in apart), statistics.median(beside)
    predicted = statistics.median(times.predicted for times in apart)
    share = statistics.median(sum(times.decode) / times.apart for times in apart)
    seconds = [f"{value:.2f}" for value in (share, was, predicted, now)]
    return [name, *seconds, f"{predicted / was:.2f}", f"{now / was:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model("tiny-skyreels")
    shots = (Shot("a red circle moving right on a blue background", 57),)
    request = RenderRequest("v", shots, 64, 64, 12, 0, 3.0, arguments.steps, "tiny-skyreels", {"name": "off"})
    # A later chunk's time: the first one also waits for its own first steps.
    each = statistics.median(one_after_the_other(model, request).denoise[1:])
    codecs = {
        "its own": model.codec,
        "computes as long as denoising": Slow(model.codec, lambda: compute(each)),
        "waits as long as denoising": Slow(model.codec, lambda: time.sleep(each)),
    }
    rows = [compare(name, replace(model, codec=codec), request, arguments.repeats) for name, codec in codecs.items()]
    print(f"tiny-skyreels, policy off, 57 frames in 5 chunks, {arguments.steps} steps, {each:.3f} s a later chunk\n")
    head = ["codec", "decoding's share", "one after the other, s", "predicted, s", "side by side, s", "predicted ratio",
            "ratio"]  # fmt: skip
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
