"""What costs a window of few steps its closeness to `off`: its first chunk, or the age of its neighbours' K/V?

python -m benchmarks.first_chunk --model tiny-skyreels --steps 11 --n 5 --seed 4401 walks each window four times: as it
is, with K/V of `off` at every step that is left out, with the first chunk's latents from `off`, with both. dB of the
latents to `off`, means over prompts: of the window, then chunk by chunk.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from statistics import mean

import torch
from torch import Tensor

from flowcache.bench.prompts import draw
from flowcache.cache.fixed_steps import Calibration
from flowcache.families.registry import load_model
from flowcache.sampling.plan import SamplingStep
from flowcache.sampling.proposal import even_steps
from flowcache.sampling.window import Window
from flowcache.worker.asks import Record
from flowcache.worker.walking import Walking
from flowcache.worker.windows import Prompt, Windows

WAYS = {
    "as it is": (False, False),
    "K/V of off": (True, False),
    "first chunk of off": (False, True),
    "both": (True, True),
}


def exact(known: Mapping[str, Tensor], chunk: int, step: int) -> Tensor:
    """Latents of `off` before the step."""
    return known[f"latents/{chunk}/{step}"]


def fresh(row: SamplingStep, computed: tuple[int, ...]) -> SamplingStep:
    """A row of every step in which those that are left out leave K/V, and take no step."""
    kept = (each if each.step in computed else replace(each, step=-1) for each in row.forwards)
    return replace(row, forwards=tuple(kept))


def walk(window: Window, every: tuple[SamplingStep, ...], known: Mapping[str, Tensor], kv: bool, first: bool) -> None:
    """kv: of what is left out, from `off`; first: chunk 0's latents, from there too."""
    plan, seen = window.plan, window.latents.seen
    whole = every[: len(plan.rows)]
    if kv:
        window.plan = replace(plan, rows=tuple(fresh(row, plan.computed) for row in whole))
    for number, row in enumerate(whole):
        left = {each.chunk: each.step for each in row.forwards if each.step >= 0 and each.step not in plan.computed}
        given = {chunk: exact(known, chunk, step) for chunk, step in left.items()} if kv else {}
        window.latents.seen = lambda row, chunk, given=given: given[chunk] if chunk in given else seen(row, chunk)
        window.run(number)
        if first and 0 in window.plan.rows[number].steps:
            after = next(step for step in (*plan.computed, plan.steps) if step > row.steps[0])
            window.latents.chunks[0] = exact(known, 0, after)


def decibels(ours: Tensor, theirs: Tensor) -> float:
    return float(10 * torch.log10(theirs.square().mean() / (ours - theirs).square().mean().clamp_min(1e-12)))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-skyreels")
    parser.add_argument("--steps", type=int, default=11)
    parser.add_argument("--n", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    walking, windows = Walking(model), Windows(model.spec, "off")
    steps = even_steps(windows.conditions().steps, options.steps)
    nothing, chunks = ((),) * len(steps), windows.whole
    made = Calibration(1.0, windows.conditions(), steps, nothing, nothing, base=windows.base)
    every = windows.plan(1.0, replace(made, computed=tuple(range(windows.conditions().steps))), chunks).rows
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for drawn in draw(model.spec, options.n, options.seed):
        prompt = Prompt(drawn.text, drawn.seed)
        known = walking.answer(Record(prompt, chunks, "off"))
        ends = [exact(known, chunk, windows.conditions().steps) for chunk in range(chunks)]
        for way, (kv, first) in WAYS.items():
            window = walking.window(prompt, 1.0, made, chunks)
            walk(window, every, known, kv, first)
            ours = window.latents.chunks
            parts = [decibels(*pair) for pair in zip(ours, ends, strict=True)]
            found[way].append([decibels(torch.cat(ours, 1), torch.cat(ends, 1)), *parts])
    of = f"{options.model}, {len(steps)} of {windows.conditions().steps} steps, {options.n} prompts"
    print(f"| {of} | window | chunks |")
    print("|---|---|---|")
    for way, each in found.items():
        whole, *parts = (mean(column) for column in zip(*each, strict=True))
        print(f"| {way} | {whole:.1f} | {', '.join('-' if part > 100 else f'{part:.1f}' for part in parts)} |")


if __name__ == "__main__":
    main()
