"""How a video changes from its first quarter to its last."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowcache.bench.statistics import Interval, interval_of_all
from flowcache.bench.table import Row


@dataclass(frozen=True)
class Drift:
    """Means over the prompts. psnr: the last quarter's less the first's, dB. colour: see `table.SCHEMA`."""

    first: Interval | None
    last: Interval | None
    psnr: Interval | None
    colour: Interval | None
    captions_first: Interval | None
    captions_last: Interval | None

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Drift":
        ends = [(row.psnr_first, row.psnr_last) for row in rows]
        return cls(
            first=interval_of_all([first for first, _ in ends]),
            last=interval_of_all([last for _, last in ends]),
            psnr=interval_of_all([None if a is None or b is None else b - a for a, b in ends]),
            colour=interval_of_all([row.colour_drift for row in rows]),
            captions_first=interval_of_all([row.caption_first for row in rows]),
            captions_last=interval_of_all([row.caption_last for row in rows]),
        )
