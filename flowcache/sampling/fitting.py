"""Coefficients of a fixed schedule, fitted where its own walk has come, many prompts in step with one another."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from flowcache.sampling.calibrated import Calibrated
from flowcache.sampling.plan import SamplingPlan
from flowcache.sampling.window import Window

RIDGES = (1e-6, 1e-4, 1e-2, 1.0)  # relative to the features' squares
GAIN = 0.02  # by so much a correction must help prompts that it was not fitted on
Table = tuple[tuple[float, ...], ...]  # of the computed steps, as in `cache.fixed_steps.Calibration`
# (row, first, later, chunk -> step) -> of each prompt, or of some, what its walk, so corrected, leaves to explain in
# that row: how these chunks come to the exact latents before those steps, one example a chunk
Ask = Callable[[int, Table, Table, Mapping[int, int]], Sequence[Sequence["Example"]]]


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
    """The ridge that is best for prompts left out; no coefficients where it does not help those. Examples that are not
    finite do not count."""
    examples = [each for each in examples if math.isfinite(each.square) and each.gram.isfinite().all()]
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


def fit(plan: SamplingPlan, ask: Ask) -> tuple[Table, Table]:
    """(first, later), from windows of two chunks or more by `plan`. ValueError where that is not `Calibrated`."""
    if not isinstance(plan.solver, Calibrated):
        raise ValueError("this plan is not calibrated; accepted: one with coefficients, which may be empty")
    tables: list[list[tuple[float, ...]]] = [[()] * len(plan.steps_of(kind)) for kind in (0, 1)]
    done = set[tuple[int, int]]()
    for number, row in enumerate(plan.rows):
        new = dict[tuple[int, int], int]()  # (table, place in it) -> chunk
        for chunk, step in row.steps.items():
            new.setdefault((min(chunk, 1), plan.place(chunk, step)), chunk)
        new = {key: chunk for key, chunk in new.items() if key not in done}
        if not new:
            continue
        to = {chunk: (*plan.steps_of(chunk), plan.steps)[place + 1] for (_, place), chunk in new.items()}
        found = ask(number, tuple(tables[0]), tuple(tables[1]), to)
        for which, (kind, place) in enumerate(new):
            tables[kind][place] = fitted([examples[which] for examples in found])
        done |= new.keys()
    return tuple(tables[0]), tuple(tables[1])


class Fitting:
    """A window that was walked as far as its coefficients were known. taken: rows of its plan."""

    def __init__(self, window: Window):
        self.window, self.taken = window, 0
        self._ahead: dict[int, list[Tensor]] | None = None  # velocities of the row that is taken next

    def examples(self, row: int, first: Table, later: Table, goals: Mapping[int, Tensor]) -> list[Example]:
        """Of these chunks' steps in a row that is not taken yet; goals: where each of them should come.

        The rows before it are corrected by the coefficients. ValueError where the plan has no place for them.
        """
        self._correct(first, later)
        while self.taken < row:
            self.window.take(self.taken, self._velocities())
            self.taken, self._ahead = self.taken + 1, None
        steps, velocities = self.window.plan.rows[row].steps, self._velocities()
        return [_example(self.window, chunk, steps[chunk], velocities[chunk], goal) for chunk, goal in goals.items()]

    def _velocities(self) -> dict[int, list[Tensor]]:
        if self._ahead is None:
            self._ahead = self.window.compute(self.taken)
        return self._ahead

    def _correct(self, first: Table, later: Table) -> None:
        plan = self.window.plan
        opening, solver = plan.opening, plan.solver
        if not isinstance(opening, Calibrated) or not isinstance(solver, Calibrated):
            raise ValueError("this window is not calibrated; accepted: one with coefficients, which may be empty")
        opening, solver = replace(opening, coefficients=first), replace(solver, coefficients=later)
        self.window.plan = replace(plan, opening=opening, solver=solver)


def _example(window: Window, chunk: int, step: int, velocities: list[Tensor], target: Tensor) -> Example:
    plan, latents, state = window.plan, window.latents.chunks[chunk], window.solver_states[chunk]
    solver = plan.solver_of(chunk)
    assert isinstance(solver, Calibrated)
    result, known, _ = solver.uncorrected(
        plan.place(chunk, step), plan.guide(step, velocities), latents, state, lambda: window.noise(chunk, step)
    )
    return Example.of(target.to(result) - result, known)
