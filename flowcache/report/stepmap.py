"""What was computed and what reused, step by step and chunk by chunk, as paths to draw. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from flowcache.records import ChunkRecord


@dataclass(frozen=True)
class StepMap:
    """One guidance branch: a row for each chunk, a column for each step.

    The paths are SVG, one unit a cell: a line of length n through n cells in the middle of their row.
    """

    branch: str
    rows: int
    columns: int
    computed: int  # cells
    reused: int
    computed_path: str
    reused_path: str


def step_maps(chunks: Sequence[ChunkRecord]) -> list[StepMap]:
    """A map for each guidance branch; chunks of versions that did not record decisions leave their row empty."""
    decisions = [chunk.decisions.split("/") if chunk.decisions else [] for chunk in chunks]
    count = max(map(len, decisions), default=0)
    names = ["with the prompt", *(f"guidance branch {number}" for number in range(1, count))]
    return [_map(names[i], [chunk[i] if i < len(chunk) else "" for chunk in decisions]) for i in range(count)]


def _map(branch: str, rows: Sequence[str]) -> StepMap:
    return StepMap(
        branch=branch,
        rows=len(rows),
        columns=max(map(len, rows)),
        computed=sum(row.count("1") for row in rows),
        reused=sum(row.count("0") for row in rows),
        computed_path=_path(rows, "1"),
        reused_path=_path(rows, "0"),
    )


def _path(rows: Sequence[str], wanted: str) -> str:
    lines = []
    for number, row in enumerate(rows):
        at = 0
        for decision, run in groupby(row):
            length = len(list(run))
            if decision == wanted:
                lines.append(f"M{at} {number}.5h{length}")
            at += length
    return "".join(lines)
