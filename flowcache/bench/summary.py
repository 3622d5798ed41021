"""What the rows say: figures of each setting, and differences on the same prompts to what costs no more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flowcache.bench.drift import Drift
from flowcache.bench.names import OFF, OWN, Entry
from flowcache.bench.statistics import Interval, Paired, interval, interval_of_all, paired_where_known, tenth
from flowcache.bench.table import Key, Row, of_entries

ANOTHER = 15.0  # dB, below which a prompt has become another sample
DEARER = 1.05  # times our forwards, up to which a baseline is compared with us
SHOWN = 3  # baselines that each of ours is compared with, the closest to the target


@dataclass(frozen=True)
class Closeness:
    """PSNR, dB. another: how many of the prompts became another sample."""

    mean: Interval
    median: float
    tenth: float
    another: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Closeness | None":
        """None where a value is missing."""
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        another = sum(value < ANOTHER for value in known)
        return cls(interval(known), float(np.median(known)), tenth(known), another)


@dataclass(frozen=True)
class Line:
    """Of one setting, means over the prompts; shares: of its reference on the same prompt. off: PSNR to that.

    drift: of K/V alone.
    """

    entry: Entry
    prompts: int
    forwards: float
    forwards_share: float
    flops: float
    flops_share: float
    seconds: float
    seconds_share: Interval
    kv_bytes: float
    kv_share: float
    off: Closeness | None
    converged: Closeness | None
    ssim: Interval | None
    cvvdp: Interval | None
    captions: Interval | None
    drift: Drift | None = None

    def closeness(self, target: str) -> Closeness | None:
        return self.converged if target == "converged" else self.off


@dataclass(frozen=True)
class Comparison:
    """Of ours with a baseline that takes at most 5 % more forwards; None where a walk is missing."""

    ours: Line
    theirs: Line
    off: Paired | None
    converged: Paired | None


def lines(rows: Sequence[Row]) -> list[Line]:
    """Of each setting. KeyError where a row's prompt has none of its reference."""
    exact = {row.key: row for row in rows if row.entry == row.entry.reference}
    return [_line(entry, own, exact) for entry, own in of_entries(rows).items()]


def _line(entry: Entry, rows: Sequence[Row], exact: Mapping[Key, Row]) -> Line:
    pairs = [(row, exact[row.prompt, row.seed, entry.reference]) for row in rows]
    return Line(
        entry=entry,
        prompts=len(rows),
        forwards=_mean([row.chunk_forwards for row in rows]),
        forwards_share=_mean([row.chunk_forwards / row.off_forwards for row in rows]),
        flops=_mean([row.flops for row in rows]),
        flops_share=_mean([row.flops / whole.flops for row, whole in pairs]),
        seconds=_mean([row.seconds for row in rows]),
        seconds_share=interval([row.seconds / whole.seconds for row, whole in pairs]),
        kv_bytes=_mean([row.kv_bytes for row in rows]),
        kv_share=_mean([row.kv_bytes / max(whole.kv_bytes, 1) for row, whole in pairs]),
        off=Closeness.of([row.psnr for row in rows]),
        converged=Closeness.of([row.psnr_converged for row in rows]),
        ssim=interval_of_all([row.ssim for row in rows]),
        cvvdp=interval_of_all([row.cvvdp for row in rows]),
        captions=interval_of_all([row.caption_right for row in rows]),
        drift=Drift.of(rows) if entry.keeps else None,
    )


def comparisons(rows: Sequence[Row], target: str) -> list[Comparison]:
    """Of each of our settings with those baselines of no more forwards that come closest to the target."""
    by_entry, every = of_entries(rows), lines(rows)
    found = []
    for ours in (line for line in every if line.entry.policy == OWN):
        others = [
            line for line in every
            if line.entry.policy != OWN and line.entry != OFF and not line.entry.keeps
            and line.forwards <= DEARER * ours.forwards
        ]  # fmt: skip
        others.sort(key=lambda line: -reached(line, target))
        for theirs in others[:SHOWN]:
            pair = by_entry[ours.entry], by_entry[theirs.entry]
            off, converged = (difference(*pair, column) for column in ("psnr", "psnr_converged"))
            found.append(Comparison(ours, theirs, off, converged))
    return found


def difference(ours: Sequence[Row], theirs: Sequence[Row], column: str) -> Paired | None:
    """Of a column of numbers, on the same prompts."""
    mine, other = ([getattr(row, column) for row in rows] for rows in (ours, theirs))
    return paired_where_known(mine, other)


def reached(line: Line, target: str = "off") -> float:
    """Mean PSNR to the target, dB; 0 where it is not known."""
    closeness = line.closeness(target)
    return closeness.mean[0] if closeness else 0.0


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
