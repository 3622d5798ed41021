"""FlowCache on MAGI-1 as published, with each mend of ours and with all, at as many chunk forwards as fewer steps take.

python -m benchmarks.mends renders the same prompts and noise under every one of them with tiny-magi, one window each,
and prints a table: chunk forwards and seconds (as shares of `off`), PSNR and SSIM to `off`, each the mean over prompts
with a 95 % confidence interval. `flowcache bench` compares whole policies, with the strongest baselines.

Thresholds are fitted to that number on other prompts, by what the policy saw in unaccelerated runs. "polynomial": the
change of the tokens is first mapped to that of the blocks' residual, as `training.calibrate` measured it; else it is
summed up as it is, as FlowCache does.
"""

import argparse
import sys
import time
from random import Random
from typing import Any

import numpy as np
import torch

from benchmarks.rendered import Rendered, render
from flowcache.bench.pictures import psnr, ssim
from flowcache.bench.shapes import caption, sample_scene, world_of
from flowcache.bench.statistics import interval, markdown
from flowcache.cache.reuse import Reuse
from flowcache.families.registry import load_model
from flowcache.families.settings import settings_of
from flowcache.models.base import LoadedModel
from training.calibrate import PUBLISHED, computed_steps, record, usual

UNMENDED = {"name": "flowcache", "velocity": False, "last_step": False, "refresh": False}  # what `paper` does
WARM_UP = 5  # steps at a chunk's start that are always computed; FlowCache's for MAGI-1
SHORTER = {20: True, 12: False}  # steps to compare with -> whether each mend is shown on its own, too
Setting = tuple[dict[str, Any], int]  # policy, steps
Pair = tuple[Rendered, Rendered]  # ours, and under `off`


def settings(model: LoadedModel, videos: int = 3, seed: int = 977) -> dict[str, Setting]:
    """By name, each with a threshold of its own."""
    seen = record(model, videos, seed).signals
    found: dict[str, Setting] = {}
    for steps, each in SHORTER.items():
        found[f"{steps} steps"] = {"name": "off"}, steps
        single = {f"{mend} alone": UNMENDED | {mend: True} for mend in UNMENDED if mend != "name"}
        policies = {"paper": {"name": "paper"}, **(single if each else {}), "all mends": {"name": "flowcache"}}
        policies = {name: policy | {"preset": f"slow{PUBLISHED}"} for name, policy in policies.items()}
        policies["all mends, polynomial"] = policies["all mends"] | {"preset": "slow"}
        for name, policy in policies.items():
            found[f"{name}, as {steps} steps"] = fitted(model, policy, steps, seen), model.spec.steps
    return found


def fitted(model: LoadedModel, policy: dict[str, Any], steps: int, seen: list[list[Any]]) -> dict[str, Any]:
    """The policy with the threshold at which it forwards as many chunks as `steps` computed steps do."""
    mended = policy["name"] == "flowcache"
    last = policy.get("last_step", mended)
    chunks = model.spec.frames // model.spec.chunk_frames
    # a finished chunk is forwarded once more in two passes of three, but for the last one
    saved = 0 if policy.get("refresh", mended) else 2 * (chunks - 1)
    passes = settings_of(usual(model.spec), model.spec).pipeline.passes
    wanted = steps + saved / (passes * chunks)
    thresholds = np.geomspace(1e-3, 10, 400)
    coefficients = tuple(model.spec.reuse[policy["preset"]]["coefficients"])
    tried = [Reuse(float(threshold), WARM_UP, coefficients) for threshold in thresholds]
    counts = np.mean([[len(computed_steps(reuse, one, last)) for reuse in tried] for one in seen], axis=0)
    nearest = thresholds[np.abs(counts - wanted) == np.abs(counts - wanted).min()]
    threshold = float(f"{np.sqrt(nearest[0] * nearest[-1]):.4g}")
    return policy | {"threshold": threshold, "ret_steps": WARM_UP}


def measure(model: LoadedModel, given: dict[str, Setting], n: int, seed: int) -> dict[str, list[Pair]]:
    """(rendered, off) of every prompt, by the settings' names; prompts, noise and their order are the same for all."""
    rng, found = Random(seed), dict[str, list[Pair]]()
    world = world_of(model.spec.vocabulary)
    for number in range(n):
        prompt, noise = caption(sample_scene(rng, world=world)), seed * 1000 + number
        off = render(model, prompt, noise, {"name": "off"}, model.spec.steps)
        found.setdefault("off", []).append((off, off))
        for name, (policy, steps) in given.items():
            found.setdefault(name, []).append((render(model, prompt, noise, policy, steps), off))
        print(f"{number + 1}/{n} {prompt}", file=sys.stderr, flush=True)
    return found


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
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, began = load_model("tiny-magi"), time.monotonic()
    found = measure(model, settings(model), arguments.n, arguments.seed)
    spec, seconds = model.spec, time.monotonic() - began
    print(f"{spec.name} {spec.digest[:12]}, {arguments.n} prompts (seed {arguments.seed}), {spec.frames} frames, "
          f"{spec.steps} steps, {seconds:.0f} s in all; mean (95 % confidence interval)\n")  # fmt: skip
    print(f"{table(found)}\n\n{gains(found)}")


if __name__ == "__main__":
    main()
