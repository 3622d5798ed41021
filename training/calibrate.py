"""Fits the reuse presets of a checkpoint: python -m training.calibrate --model FOLDER

As TeaCache does (arXiv 2411.19108): along unaccelerated runs the change of the signal is compared with the
real change of the blocks' residual, a polynomial maps one to the other, and thresholds are chosen for the
wanted share of skipped steps.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from flowcache.cache.reuse import Policy, Reuse, ReuseState, decide, relative_change
from flowcache.models.base import LoadedModel
from flowcache.models.registry import load_model
from flowcache.sampling.denoise import SamplerSettings, Texts, Visit, denoise
from flowcache.sampling.solver import sigmas, timesteps
from training.shapes import caption, sample_scene


@dataclass(frozen=True)
class Preset:
    """skipped: wanted share of forwards; ret_steps: steps at a chunk's start that are always computed."""

    name: str
    skipped: float
    ret_steps: int


STRIDES = (1, 2, 3)  # steps apart; the larger ones say what shorter schedules will see
PRESETS = (Preset("slow", 0.4, 5), Preset("fast", 0.6, 1))


class Recorder:
    """The model, remembering the residual of its last `transform`."""

    def __init__(self, model):
        self.model, self.residual = model, None

    def __getattr__(self, name):
        return getattr(self.model, name)

    def transform(self, tokens: Tensor, *rest) -> Tensor:
        """As the model's own."""
        out = self.model.transform(tokens, *rest)
        self.residual = out - tokens
        return out


def settings_of(model: LoadedModel) -> SamplerSettings:
    spec = model.spec
    return SamplerSettings(
        steps=spec.steps, shift=spec.shift, guidance=spec.guidance, ar_step=spec.ar_step, chunk=spec.chunk,
        fps=spec.fps, condition_noise=spec.condition_noise,
    )  # fmt: skip


def signals(model: LoadedModel) -> list[Tensor]:
    """What the policy sees at each step: it depends on the timestep alone."""
    spec, transformer = model.spec, model.transformer
    grid = transformer.grid(torch.zeros(1, spec.channels, spec.chunk, spec.height // 8, spec.width // 8))
    steps = timesteps(sigmas(spec.steps, spec.shift))
    times = [torch.full((1, spec.chunk), float(t)) for t in steps]
    with torch.inference_mode():
        return [transformer.signal(transformer.condition(t, grid, spec.fps)) for t in times]


def changes(values: list[Tensor], stride: int) -> list[float]:
    """mean |v - v_before| / mean |v_before|, each compared with the one `stride` steps before."""
    return [relative_change(b, a) for a, b in zip(values, values[stride:], strict=False)]


def residual_changes(model: LoadedModel, videos: int, seed: int) -> dict[int, np.ndarray]:
    """How the residual changes over each of STRIDES, mean over videos, chunks and branches: [steps - stride] each."""
    spec, rng, recorder = model.spec, Random(seed), Recorder(model.transformer)
    found: dict[int, list[list[float]]] = {stride: [] for stride in STRIDES}
    for number in range(videos):
        residuals: dict[tuple[int, int], list[Tensor]] = {}

        def observe(visit: Visit, residuals=residuals) -> None:
            if visit.step >= 0:
                rows = recorder.residual  # of one branch, or of all
                residuals.setdefault((visit.chunk, visit.branch), []).append(rows[visit.branch % len(rows)])

        shape = (spec.channels, spec.window, spec.height // spec.space_stride, spec.width // spec.space_stride)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed + number))
        texts = Texts(model.text.encode(caption(sample_scene(rng))), model.text.encode(spec.negative_prompt))
        for _ in denoise(recorder, noise, texts, settings_of(model), Policy("off"), observe=observe):
            pass
        for stride in STRIDES:
            found[stride] += [changes(values, stride) for values in residuals.values()]
    return {stride: np.mean(rows, axis=0) for stride, rows in found.items()}


def computed_steps(reuse: Reuse, seen: list[Tensor]) -> list[int]:
    """The steps that the policy computes for these signals."""
    state, computed = ReuseState(), []
    for step, signal in enumerate(seen):
        decision, state = decide(reuse, state, signal, step, len(seen))
        if decision.compute:
            computed.append(step)
    return computed


def choose(preset: Preset, coefficients: tuple[float, ...], seen: list[Tensor]) -> Reuse:
    """The middle of the thresholds that come nearest to the wanted share, so that rounding can't change a decision."""
    wanted = round(len(seen) * (1 - preset.skipped))
    grid = np.geomspace(1e-3, 10, 400)
    counts = np.array([len(computed_steps(Reuse(t, preset.ret_steps, coefficients), seen)) for t in grid])
    fitting = grid[np.abs(counts - wanted) == np.abs(counts - wanted).min()]
    return Reuse(float(f"{np.sqrt(fitting[0] * fitting[-1]):.4g}"), preset.ret_steps, coefficients)


def calibrate(folder: Path, videos: int, seed: int) -> None:
    """Measures, fits, prints the table of decisions and writes the presets into flowcache.json."""
    model = load_model(str(folder))
    seen = signals(model)
    real = residual_changes(model, videos, seed)
    distances = {stride: np.array(changes(seen, stride)) for stride in STRIDES}
    x, y = (np.concatenate([values[stride] for stride in STRIDES]) for values in (distances, real))
    coefficients = tuple(float(f"{c:.8g}") for c in np.polyfit(x, y, 4, w=1 / y))  # relative errors count
    print("stride  step  signal  residual  fitted")
    for stride in STRIDES:
        for step, (d, change) in enumerate(zip(distances[stride], real[stride], strict=True), stride):
            print(f"{stride:6}  {step:4}  {d:.4f}  {change:.4f}  {np.polyval(coefficients, d):.4f}")
    path = folder / "flowcache.json"
    spec = json.loads(path.read_text())
    for preset in PRESETS:
        reuse = choose(preset, coefficients, seen)
        steps = computed_steps(reuse, seen)
        print(f"{preset.name}: threshold {reuse.threshold}, {len(steps)} of {len(seen)} steps computed: {steps}")
        spec["reuse"][preset.name] = {
            "threshold": reuse.threshold,
            "ret_steps": reuse.ret_steps,
            "coefficients": list(coefficients),
        }
    path.write_text(json.dumps(spec, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder, whose flowcache.json is rewritten")
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    calibrate(arguments.model, arguments.videos, arguments.seed)


if __name__ == "__main__":
    main()
