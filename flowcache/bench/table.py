"""`bench.parquet`: one row for each prompt and setting, written anew after each, so that a killed run goes on.

What all rows have in common (checkpoint, seed, steps, device) stands in the file's metadata: rows of another run are
never mixed with these.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowcache.bench.names import Entry
from flowcache.errors import InputError, Problem
from flowcache.families.spec_file import number
from flowcache.models.whole_files import whole

FILE = "bench.parquet"
KEY = b"flowcache.bench"
SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("prompt", pa.string()),
        ("seed", pa.int64()),  # of the noise
        ("policy", pa.string()),
        ("setting", pa.string()),
        ("chunk_forwards", pa.int64()),
        ("off_forwards", pa.int64()),
        ("flops", pa.int64()),
        ("seconds", pa.float64()),
        ("kv_bytes", pa.int64()),
        ("psnr", pa.float64()),  # to off, dB, of K/V to kv-all; null for these themselves
        ("ssim", pa.float64()),  # to the target, of K/V to kv-all
        ("cvvdp", pa.float64()),  # alike, in JOD; null where it is not installed
        ("psnr_converged", pa.float64()),  # dB; null where no converged walk was asked for
        ("caption_right", pa.bool_()),  # null where nobody can judge
        # Null in rows that were written before there were K/V to choose.
        ("chunks", pa.int64()),  # of the video
        ("psnr_first", pa.float64()),  # as psnr, of the first quarter of its frames; of K/V alone, as all that follow
        ("psnr_last", pa.float64()),  # of the last quarter
        ("colour_drift", pa.float64()),  # RGB distance of the last quarter's mean colour from the first's, of 255
        ("caption_first", pa.bool_()),  # as caption_right, of the first quarter
        ("caption_last", pa.bool_()),
    ]
)
BEFORE = pa.schema(list(SCHEMA)[: SCHEMA.get_field_index("chunks")])  # of tables that were begun then


@dataclass(frozen=True)
class Row:
    """See SCHEMA."""

    model: str
    prompt: str
    seed: int
    policy: str
    setting: str
    chunk_forwards: int
    off_forwards: int
    flops: int
    seconds: float
    kv_bytes: int
    psnr: float | None
    ssim: float | None
    cvvdp: float | None
    psnr_converged: float | None
    caption_right: bool | None
    chunks: int | None = None
    psnr_first: float | None = None
    psnr_last: float | None = None
    colour_drift: float | None = None
    caption_first: bool | None = None
    caption_last: bool | None = None

    @property
    def entry(self) -> Entry:
        return Entry(self.policy, self.setting)

    @property
    def key(self) -> "Key":
        return self.prompt, self.seed, self.entry


Key = tuple[str, int, Entry]  # prompt, seed of the noise, setting


class BenchTable:
    """In `folder`. common: what all rows have in common. InputError where the file there is another run's."""

    def __init__(self, folder: Path, common: Mapping[str, Any]):
        self.file, self.common = folder / FILE, json.loads(json.dumps(common))
        self.rows = _read(self.file, self.common) if self.file.exists() else []
        self._known = {row.key: row for row in self.rows}

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def row(self, key: Key) -> Row:
        return self._known[key]

    def add(self, row: Row) -> None:
        """On disk when it returns, together with all before it. FlowcacheError where that fails."""
        self.rows.append(row)
        self._known[row.key] = row
        metadata = {KEY: json.dumps(self.common).encode()}
        made = pa.Table.from_pylist([vars(each) for each in self.rows], schema=SCHEMA.with_metadata(metadata))
        with whole(self.file) as part:
            pq.write_table(made, part, compression="zstd")


def _read(file: Path, common: Mapping[str, Any]) -> list[Row]:
    """InputError."""
    try:
        made = pq.ParquetFile(file).read()  # of one file: a folder of that name is none
        if made.schema.remove_metadata() not in (SCHEMA, BEFORE):
            raise ValueError("its columns are others")
        theirs = dict(json.loads((made.schema.metadata or {})[KEY]))
        rows = [Row(**each) for each in made.to_pylist() if _sound(each)]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError([Problem(str(file), "", f"is no table of flowcache bench ({error})")]) from None
    differing = [key for key in common if theirs.get(key) != common[key]]
    if differing:
        raise InputError([
            Problem(str(file), key, f"is {theirs.get(key)!r} there; accepted: {common[key]!r}, or another --out")
            for key in differing
        ])  # fmt: skip
    return rows


def _sound(row: Mapping[str, Any]) -> bool:
    """ValueError for one that no bench writes."""
    counts = [row[key] for key in ("chunk_forwards", "off_forwards", "flops", "seconds")]
    measured = [value for value in row.values() if isinstance(value, float)]
    if all(number(each) and each > 0 for each in counts) and all(map(number, measured)):
        return True
    raise ValueError(f"the row of {row['policy']}:{row['setting']} on {row['prompt']!r} can't have been measured")


def of_entries(rows: Sequence[Row]) -> dict[Entry, list[Row]]:
    """In the order in which they were first measured; the rows of each by seed."""
    found: dict[Entry, list[Row]] = {}
    for row in rows:
        found.setdefault(row.entry, []).append(row)
    return {entry: sorted(own, key=lambda row: row.seed) for entry, own in found.items()}
