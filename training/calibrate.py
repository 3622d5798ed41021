"""Fits the reuse presets of a checkpoint: python -m training.calibrate --model FOLDER

As TeaCache does (arXiv 2411.19108): along unaccelerated runs the change of the signal is compared with the
real change of the blocks' residual, a polynomial maps one to the other, and thresholds are chosen for the
wanted share of skipped steps. For MAGI-1 also presets that sum up the change of the signal itself, as FlowCache does.
"""

import argparse
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from flowcache.bench.shapes import caption, sample_scene, world_of
from flowcache.cache.reuse import Reuse, ReuseState, decide, relative_change
from flowcache.families.known import family
from flowcache.families.registry import load_model
from flowcache.families.settings import resolve_policy, settings_of
from flowcache.models.base import LoadedModel, VideoModel
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.sampling.loop import Texts, Visit, denoise
from flowcache.sampling.solver import sigmas, timesteps
from training.families import FAMILIES


@dataclass(frozen=True)
class Preset:
    """skipped: wanted share of forwards; warmup_steps: steps at a chunk's start that are always computed."""

    name: str
    skipped: float
    warmup_steps: int


STRIDES = (1, 2, 3)  # steps apart; the larger ones say what shorter schedules will see
PUBLISHED = "-published"  # what the names of MAGI-1's presets without a polynomial end with
PRESETS = (Preset("slow", 0.4, 5), Preset("fast", 0.6, 1))


class Recorder:
    """The model, remembering the residual of each forward until it is observed."""

    def __init__(self, model: VideoModel):
        self.model = model
        self.residuals: deque[Tensor] = deque()

    def __getattr__(self, name):
        return getattr(self.model, name)

    def transform(self, tokens: Tensor, *rest) -> Tensor:
        """As the model's own."""
        out = self.model.transform(tokens, *rest)
        self.residuals.extend(out - tokens)
        return out


@dataclass(frozen=True)
class Recording:
    """Along unaccelerated runs. signals: `short` for the tokens that enter the blocks, of every chunk and run.

    residuals: of every chunk, run and branch, how the blocks' residual changes over each of STRIDES.
    """

    signals: list[list[Tensor]]
    residuals: dict[int, list[list[float]]]


def record(model: LoadedModel, videos: int, seed: int) -> Recording:
    """`videos` windows of the model's length under `off`."""
    spec, rng, recorder = model.spec, Random(seed), Recorder(model.transformer)
    found = Recording([], {stride: [] for stride in STRIDES})
    for number in range(videos):
        prompt = caption(sample_scene(rng, world=world_of(spec.vocabulary)))
        request = usual(spec, prompt, seed)
        signals: dict[int, list[Tensor]] = {}
        residuals: dict[tuple[int, int], list[Tensor]] = {}

        def observe(visit: Visit, signals=signals, residuals=residuals) -> None:
            residual = recorder.residuals.popleft()
            if visit.step >= 0:
                residuals.setdefault((visit.chunk, visit.branch), []).append(residual)
                if visit.branch == 0:
                    signals.setdefault(visit.chunk, []).append(recorder.embed(visit.latents[None]))

        chunks = -(-spec.frames // spec.chunk_frames)
        shape = (spec.channels, chunks * spec.chunk, spec.height // spec.space_stride, spec.width // spec.space_stride)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed + number))
        texts, policy = texts_of(model, prompt, chunks), resolve_policy(request.policy, spec)
        for _ in denoise(recorder, noise, texts, settings_of(request, spec), policy, observe=observe):
            pass
        found.signals.extend(map(short, signals.values()))
        for stride in STRIDES:
            found.residuals[stride] += [changes(values, stride) for values in whole(residuals.values())]
    return found


def whole(runs: Iterable[list[Tensor]]) -> list[list[Tensor]]:
    """Those of every step: MAGI-1's pass alone is run as long as it has weight."""
    runs = list(runs)
    return [values for values in runs if len(values) == max(map(len, runs))]


def usual(spec: ModelSpec, prompt: str = "", seed: int = 0) -> RenderRequest:
    """A window of the model's own length and settings."""
    return RenderRequest(
        id="recorded", shots=(Shot(prompt, spec.frames),), width=spec.width, height=spec.height, fps=spec.fps,
        seed=seed, guidance=spec.guidance, steps=spec.steps, model=spec.name, policy={"name": "off"},
    )  # fmt: skip


def short(values: list[Tensor]) -> list[Tensor]:
    """Single numbers that change as much as the values do: all that decisions ask for."""
    growth = 1 + torch.tensor([0.0, *changes(values, 1)], dtype=torch.float64)
    return list(growth.cumprod(0)[:, None])


def texts_of(model: LoadedModel, prompt: str, chunks: int) -> Texts:
    if family(model.spec.family).traits.prompt_per == "chunk":
        return Texts([model.text.caption(prompt, left) for left in reversed(range(chunks))])
    return Texts(model.text.encode(prompt), model.text.encode(model.spec.negative_prompt))


def signals(model: LoadedModel) -> list[Tensor]:
    """What the policy sees at each step where that depends on the timestep alone (SkyReels-V2)."""
    spec, transformer = model.spec, model.transformer
    grid = transformer.grid(torch.zeros(1, spec.channels, spec.chunk, spec.height // 8, spec.width // 8))
    steps = timesteps(sigmas(spec.steps, spec.shift))
    times = [torch.full((1, spec.chunk), float(t)) for t in steps]
    with torch.inference_mode():
        return [transformer.signal(transformer.condition(t, grid, spec.fps), None, grid) for t in times]


def changes(values: list[Tensor], stride: int) -> list[float]:
    """mean |v - v_before| / mean |v_before|, each compared with the one `stride` steps before."""
    return [relative_change(b, a) for a, b in zip(values, values[stride:], strict=False)]


def computed_steps(reuse: Reuse, seen: list[Tensor], last: bool = True) -> list[int]:
    """The steps that the policy computes for these signals; last: the last one always."""
    state, computed = ReuseState(), []
    for step, signal in enumerate(seen):
        decision, state = decide(reuse, state, signal, step, len(seen) + (not last))
        if decision.compute:
            computed.append(step)
    return computed


def choose(preset: Preset, coefficients: tuple[float, ...], seen: list[list[Tensor]]) -> Reuse:
    """The middle of the thresholds that come nearest to the wanted share, so that rounding can't change a decision.

    seen: the signals of each chunk; the share is that of all of them together.
    """
    wanted = round(len(seen[0]) * (1 - preset.skipped))
    grid = np.geomspace(1e-3, 10, 400)
    tried = [Reuse(float(threshold), preset.warmup_steps, coefficients) for threshold in grid]
    counts = np.mean([[len(computed_steps(reuse, one)) for reuse in tried] for one in seen], axis=0)
    fitting = grid[np.abs(counts - wanted) == np.abs(counts - wanted).min()]
    return Reuse(float(f"{np.sqrt(fitting[0] * fitting[-1]):.4g}"), preset.warmup_steps, coefficients)


def fitted(model: LoadedModel, recording: Recording) -> tuple[float, ...]:
    """The polynomial from the signal's change to the residual's; prints how well it fits.

    SkyReels-V2's signal is known for any distance of steps. MAGI-1's grows with the step's own length, so that
    neighbouring steps alone say what the next one will bring.
    """
    known = FAMILIES[model.spec.family].by_timestep
    seen, strides = ([signals(model)], STRIDES) if known else (recording.signals, STRIDES[:1])
    real = {stride: np.mean(recording.residuals[stride], axis=0) for stride in strides}
    distances = {stride: np.mean([changes(one, stride) for one in seen], axis=0) for stride in strides}
    x, y = (np.concatenate([values[stride] for stride in strides]) for values in (distances, real))
    coefficients = tuple(float(f"{c:.8g}") for c in np.polyfit(x, y, 4, w=1 / y))  # relative errors count
    print("stride  step  signal  residual  fitted")
    for stride in strides:
        for step, (d, change) in enumerate(zip(distances[stride], real[stride], strict=True), stride):
            print(f"{stride:6}  {step:4}  {d:.4f}  {change:.4f}  {np.polyval(coefficients, d):.4f}")
    return coefficients


def calibrate(folder: Path, videos: int, seed: int) -> None:
    """Measures, fits, prints the table of decisions and writes the presets into flowcache.json."""
    model = load_model(str(folder))
    recording = record(model, videos, seed)
    kinds, known = {"": fitted(model, recording)}, FAMILIES[model.spec.family].by_timestep
    seen = [signals(model)] if known else recording.signals
    if not known:
        kinds[PUBLISHED] = 1.0, 0.0
    path = folder / "flowcache.json"
    spec = json.loads(path.read_text())
    for preset in PRESETS:
        for kind, coefficients in kinds.items():
            reuse = choose(preset, coefficients, seen)
            steps = computed_steps(reuse, seen[0])
            name = preset.name + kind
            print(f"{name}: threshold {reuse.threshold}, {len(steps)} of {len(seen[0])} steps computed: {steps}")
            spec["reuse"][name] = {
                "threshold": reuse.threshold,
                "ret_steps": reuse.warmup_steps,
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
