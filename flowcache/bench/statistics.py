"""Means with their confidence intervals, of values and of differences that belong together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Interval = tuple[float, float, float]  # mean, and the ends of its 95 % confidence interval


def interval(values: Sequence[float], draws: int = 2000, seed: int = 0) -> Interval:
    """Mean with its 95 % confidence interval (bootstrap over the values): (mean, low, high)."""
    sample = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = sample[rng.integers(0, len(sample), (draws, len(sample)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(sample.mean()), float(low), float(high)


def tenth(values: Sequence[float]) -> float:
    """What nine tenths of the values reach: their 10th percentile, between neighbours as they go."""
    return float(np.percentile(values, 10))


@dataclass(frozen=True)
class Paired:
    """Differences of values that belong to the same prompts. better: how many are above 0, of so many."""

    mean: Interval
    median: float
    better: int
    of: int


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """ours - theirs. ValueError where they are not equally many, or none."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    if not differences:
        raise ValueError("nothing to compare")
    median = float(np.median(differences))
    return Paired(interval(differences), median, sum(each > 0 for each in differences), len(differences))


def interval_of_all(values: Sequence[float | None]) -> Interval | None:
    """None where a value is missing."""
    known = [float(value) for value in values if value is not None]
    return interval(known) if known and len(known) == len(values) else None


def paired_where_known(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Paired | None:
    """Of the pairs in which both are known; None where there are none."""
    known = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    return paired(*zip(*known, strict=True)) if known else None


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table; a preset's name may hold what divides cells."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
