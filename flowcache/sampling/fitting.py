"""Coefficients of a fixed schedule, fitted where its own walk has come, many prompts in step with one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from flowcache.sampling.calibrated import Calibrated
from flowcache.sampling.window import Window

RIDGES = (1e-6, 1e-4, 1e-2, 1.0)  # relative to the features' squares
GAIN = 0.02  # by so much a correction must help prompts that it was not fitted on
Path = Mapping[tuple[int, int], Tensor]  # (chunk, step) -> latents before the step; step `steps`: at the end


@dataclass(frozen=True)
class Example:
    """Of one prompt, in float64: products of the features [F, F], those with what is to explain [F], its square."""

    gram: Tensor
    right: Tensor
    square: float

    @classmethod
    def of(cls, residual: Tensor, known: Sequence[Tensor]) -> "Example":
        columns = torch.stack([feature.flatten() for feature in known]).double().cpu()
        missing = residual.flatten().double().cpu()
        return cls(columns @ columns.T, columns @ missing, float(missing @ missing))

    def left(self, coefficients: Tensor) -> float:
        """The square of what they leave unexplained."""
        return float(self.square - 2 * coefficients @ self.right + coefficients @ self.gram @ coefficients)


def solved(examples: Sequence[Example], ridge: float) -> Tensor:
    """[F]. Examples count by 1 / (their square + a tenth of the middle one): one that went astray bends nothing."""
    middle = median(each.square for each in examples)
    weights = [1 / (each.square + 0.1 * middle + 1e-30) for each in examples]
    gram = torch.stack([weight * each.gram for weight, each in zip(weights, examples, strict=True)]).sum(0)
    right = torch.stack([weight * each.right for weight, each in zip(weights, examples, strict=True)]).sum(0)
    scale = gram.diagonal().clamp_min(1e-30).sqrt()
    eye = torch.eye(len(scale), dtype=gram.dtype)
    return torch.linalg.solve(gram / scale[:, None] / scale + ridge * eye, right / scale) / scale


def fitted(examples: Sequence[Example]) -> tuple[float, ...]:
    """The ridge that is best for prompts left out; no coefficients where it does not help those."""
    if len(examples) < 2:
        return ()
    middle = median(each.square for each in examples)
    weights = [1 / (each.square + 0.1 * middle + 1e-30) for each in examples]

    def left_out(ridge: float) -> float:
        others = [[*examples[:place], *examples[place + 1 :]] for place in range(len(examples))]
        errors = (each.left(solved(rest, ridge)) for each, rest in zip(examples, others, strict=True))
        return sum(weight * error for weight, error in zip(weights, errors, strict=True))

    errors = {ridge: left_out(ridge) for ridge in RIDGES}
    best = min(RIDGES, key=lambda ridge: errors[ridge])
    before = sum(weight * each.square for weight, each in zip(weights, examples, strict=True))
    return tuple(solved(examples, best).tolist()) if errors[best] < (1 - GAIN) * before else ()


def fit(windows: Sequence[Window], paths: Sequence[Path]) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """(first, later) as in `cache.fixed_steps.Calibration`, from windows of two chunks or more and the exact walks.

    The windows' plans are `Calibrated`, and alike. ValueError else.
    """
    plan = windows[0].plan
    tables: list[list[tuple[float, ...]]] = [[()] * len(plan.computed), [()] * len(plan.computed)]
    for window in windows:
        made = [window.plan.opening, window.plan.solver]
        own = [replace(each, coefficients=table) for each, table in zip(made, tables, strict=True)
               if isinstance(each, Calibrated)]  # fmt: skip
        if len(own) < 2:
            raise ValueError("this plan is not calibrated; accepted: one with coefficients, which may be empty")
        window.plan = replace(window.plan, opening=own[0], solver=own[1])
    done = set[tuple[int, int]]()
    with torch.inference_mode():
        for number, row in enumerate(plan.rows):
            velocities = [window.compute(number) for window in windows]
            for chunk, step in row.steps.items():
                kind, place = min(chunk, 1), plan.place(step)
                if (kind, place) not in done:
                    done.add((kind, place))
                    to = (*plan.computed, plan.steps)[place + 1]
                    tables[kind][place] = fitted(
                        [_example(window, chunk, step, own[chunk], path[chunk, to])
                         for window, own, path in zip(windows, velocities, paths, strict=True)]
                    )  # fmt: skip
            for window, own in zip(windows, velocities, strict=True):
                window.take(number, own)
    return tuple(map(tuple, tables))


def _example(window: Window, chunk: int, step: int, velocities: list[Tensor], target: Tensor) -> Example:
    plan, latents, state = window.plan, window.latents.chunks[chunk], window.solver_states[chunk]
    solver = plan.solver_of(chunk)
    assert isinstance(solver, Calibrated)
    result, known, _ = solver.uncorrected(
        plan.place(step), plan.guide(step, velocities), latents, state, lambda: window.noise(chunk, step)
    )
    return Example.of(target.to(result) - result, known)
