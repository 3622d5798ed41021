"""What each policy spares and what it costs in quality, against simply taking fewer steps.

python -m benchmarks.policies renders the same prompts and noise under every policy with the bundled model, one
window each, and prints a table: chunk forwards and seconds (as shares of `off`), PSNR and SSIM to `off`, each the mean
over prompts with a 95 % confidence interval. The last rows, "N steps", compute every step of a shorter schedule at
about as many forwards as a policy needs (of two that differ by one step, the longer).

--model tiny-magi: FlowCache as published and with our mends (see `benchmarks.mends`) instead.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch

from benchmarks.mends import SHORTER, Setting
from benchmarks.mends import settings as with_mends
from flowcache.bench.pictures import psnr, ssim
from flowcache.bench.shapes import caption, sample_scene, world_of
from flowcache.bench.statistics import interval, markdown
from flowcache.families.known import family
from flowcache.families.registry import load_model
from flowcache.families.settings import resolve_policy
from flowcache.inputs.schema import Policy
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel
from flowcache.planner.price import window
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.sampling.dry_run import at_most, dry_run
from flowcache.worker.renderer import SegmentRenderer

EXACT = {"name": "flowcache", "reuse": False}  # the pictures of `off`, with the K/V of what is finished kept
DEFAULT = ("paper:slow", "paper:fast", "teacache:slow", "flowcache:slow")


@dataclass(frozen=True)
class Rendered:
    """frames: uint8 [T, H, W, 3]; forwards: of a chunk, guidance branches counted; CPU seconds, all threads."""

    frames: np.ndarray
    forwards: int
    seconds: float


Pair = tuple[Rendered, Rendered]  # ours, and under `off`


def known_to(spec: ModelSpec) -> tuple[str, ...]:
    """DEFAULT for a family that knows all of it; of others the mends are compared."""
    known = {policy.name for policy in family(spec.family).policies}
    return DEFAULT if all(name.partition(":")[0] in known for name in DEFAULT) else ()


def render(model: LoadedModel, prompt: str, seed: int, policy: dict[str, Any], steps: int) -> Rendered:
    """One window of the model's length."""
    spec = model.spec
    request = RenderRequest(
        id="measured", shots=(Shot(prompt, spec.frames),), width=spec.width, height=spec.height, fps=spec.fps,
        seed=seed, guidance=spec.guidance, steps=steps, model=spec.name, policy=policy,
        negative_prompt=spec.negative_prompt,
    )  # fmt: skip
    (segment,) = plan(request, spec)
    began = time.process_time()
    chunks = list(SegmentRenderer(model, request, segment, None).chunks())
    seconds = time.process_time() - began
    frames = np.concatenate([chunk.frames for chunk in chunks])
    return Rendered(frames, forwards(model, request, chunks), seconds)


def forwards(model: LoadedModel, request: RenderRequest, chunks: list[Any]) -> int:
    """Steps that were computed, and what is forwarded besides for its K/V alone."""
    (segment,) = plan(request, model.spec)
    every = window(request, segment, model.spec)
    policy = resolve_policy(request.policy, model.spec)
    done = dry_run(every.settings, every.shape, model.transformer.config.patch, at_most(policy))
    return done.forwards - (sum(chunk.steps_reused for chunk in chunks) if policy.reuse else 0)


def fewer_steps(spec: ModelSpec, exact: int, wanted: int) -> int:
    """Steps at which computing all of them takes nearest to `wanted` forwards, where spec.steps take `exact`."""
    branches = 2 if spec.guidance > 1 else 1
    per_step = branches * (spec.window // spec.chunk)
    return max(1, spec.steps - round((exact - wanted) / per_step))


def measure(model: LoadedModel, settings: dict[str, Setting], n: int, seed: int) -> dict[str, list[Pair]]:
    """(rendered, off) of every prompt, by the settings' names; prompts, noise and their order are the same for all.

    Of SkyReels-V2 shorter schedules are measured, too. There what is reused follows from the timesteps alone, so the
    first video tells the forwards of all.
    """
    rng, steps, found, settings = Random(seed), model.spec.steps, {}, dict(settings)
    world = world_of(model.spec.vocabulary)
    for number in range(n):
        prompt, noise = caption(sample_scene(rng, world=world)), seed * 1000 + number
        off = render(model, prompt, noise, {"name": "off"}, steps)
        found.setdefault("off", []).append((off, off))
        for name, (policy, count) in settings.items():
            found.setdefault(name, []).append((render(model, prompt, noise, policy, count), off))
        if number == 0 and known_to(model.spec):
            exact = render(model, prompt, noise, EXACT, steps).forwards
            counts = {fewer_steps(model.spec, exact, found[name][0][0].forwards) for name in settings}
            apart = sorted((count for count in counts if count + 1 not in counts), reverse=True)
            shorter = {f"{count} steps": (EXACT, count) for count in apart}
            found |= {name: [(render(model, prompt, noise, *given), off)] for name, given in shorter.items()}
            settings |= shorter
        print(f"{number + 1}/{n} {prompt}", file=sys.stderr, flush=True)
    return found


def named(name: str) -> dict[str, Any]:
    """A policy from its short form, "paper:slow" say."""
    return Policy.model_validate(name).model_dump(exclude_none=True)


def summary(pairs: list[Pair]) -> dict[str, tuple[float, float, float]]:
    """Mean and 95 % confidence interval of each figure over the prompts."""
    return {
        "forwards": interval([ours.forwards / off.forwards for ours, off in pairs]),
        "seconds": interval([ours.seconds / off.seconds for ours, off in pairs]),
        "psnr": interval([psnr(ours.frames, off.frames) for ours, off in pairs]),
        "ssim": interval([ssim(ours.frames, off.frames) for ours, off in pairs]),
    }


def table(found: dict[str, list[Pair]]) -> str:
    head = ["policy", "chunk forwards", "share of off", "CPU seconds", "share of off", "PSNR, dB", "SSIM"]
    rows = []
    for name, pairs in found.items():
        figures = summary(pairs)
        forwards_mean, seconds_mean = (np.mean([getattr(o, key) for o, _ in pairs]) for key in ("forwards", "seconds"))
        shares = [spread(figures[key], 3) for key in ("forwards", "seconds")]
        quality = ["-", "-"] if name == "off" else [spread(figures["psnr"], 2), spread(figures["ssim"], 4)]
        rows.append([name, f"{forwards_mean:.0f}", shares[0], f"{seconds_mean:.2f}", shares[1], *quality])
    return markdown(head, rows)


def gains(found: dict[str, list[Pair]]) -> str:
    """What all mends bring at equal forwards, prompt by prompt: the difference in PSNR."""
    lines = []
    for steps in SHORTER:
        paper, ours = ([psnr(x.frames, off.frames) for x, off in found[f"{name}, as {steps} steps"]]
                       for name in ("paper", "all mends"))  # fmt: skip
        better = sum(b > a for a, b in zip(paper, ours, strict=True))
        gained = spread(interval([b - a for a, b in zip(paper, ours, strict=True)]), 2)
        lines.append(f"All mends over paper, as {steps} steps: {gained} dB; better in {better} of {len(ours)}.")
    return "\n".join(lines)


def spread(figure: tuple[float, float, float], digits: int) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in figure)
    return mean if low == high else f"{mean} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=32, help="prompts")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and noise")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="tiny-skyreels")
    parser.add_argument("--policies", nargs="+", metavar="NAME:PRESET", help="instead of those for the family")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, began = load_model(arguments.model), time.monotonic()
    given = arguments.policies or known_to(model.spec)
    settings = {name: (named(name), model.spec.steps) for name in given} if given else with_mends(model)
    found = measure(model, settings, arguments.n, arguments.seed)
    if arguments.json:
        print(json.dumps({name: summary(pairs) for name, pairs in found.items()}))
        return
    spec = model.spec
    first, last = arguments.seed * 1000, arguments.seed * 1000 + arguments.n - 1
    print(f"{spec.name} {spec.digest[:12]}, {arguments.n} prompts (seed {arguments.seed}, noise {first} to {last}), "
          f"{spec.frames} frames, {spec.steps} steps, {arguments.threads} thread(s), "
          f"{time.monotonic() - began:.0f} s in all; mean (95 % confidence interval)\n")  # fmt: skip
    print(table(found))
    if not given:
        print(f"\n{gains(found)}")


if __name__ == "__main__":
    main()
