"""Manifest rows from Parquet and Arrow files, read by a child process: few bytes may unpack to gigabytes."""

import io
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from flowcache.errors import UnreadableError
from flowcache.inputs.children import Children, Limits

ROWS, COLUMNS = 5_000_000, 1000  # of a file
ROW_BYTES = 16 << 20  # of what is in the cells of one row
STRING, ENTRIES = 16 << 20, 100_000  # of one text in the file's description, and of one list there
BATCH = 256  # rows that are unpacked together
LIMITS = Limits(memory=1 << 30, cpu=60, wall=300)  # of a batch
Row = dict[str, Any] | None  # None: larger than it may be


@dataclass(frozen=True)
class Odd:
    """A value of a type that no field takes, as it is written."""

    written: str

    def __repr__(self) -> str:
        return self.written


class _Full(ValueError):
    """More in one row than there may be."""


def table_rows(kind: str, path: str, children: Children, limit: int) -> Iterator[tuple[int, Row]]:
    """(number, row) of every record of a "Parquet" or an "Arrow" file, from 1. limit: bytes in all cells.

    UnreadableError says what is wrong.
    """
    number, left = 0, limit
    try:
        for answer in children.ask(_read, LIMITS, kind, path):
            left -= len(answer)
            if left < 0:
                raise UnreadableError(f"holds more than {limit >> 20:,} MiB in its cells")
            for row in _Plain(io.BytesIO(answer)).load():
                number += 1
                yield number, row
    except UnreadableError as error:
        where = f" (after row {number:,})" if number else ""
        raise UnreadableError(f"{error}{where}", error.slow) from error


class _Plain(pickle.Unpickler):
    """Of an answer, which is no better than what was read: values, and none that runs code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (Odd.__module__, Odd.__qualname__):
            return Odd
        raise pickle.UnpicklingError(f"{module}.{name} is no value")


def _read(kind: str, path: str) -> Iterator[bytes]:
    """In the child: the rows, batch after batch."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    number = 0
    try:
        for batch in _parquet(path) if kind == "Parquet" else _arrow(path):
            rows = [_row(record) for record in batch.to_pylist()]
            number += len(rows)
            if number > ROWS:
                raise UnreadableError(f"has more than {ROWS:,} rows")
            yield pickle.dumps(rows)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableError(f"is a damaged or incomplete {kind} file") from error


def _parquet(path: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    # Streamed page by page: a column of a row group is never whole in memory.
    table = pq.ParquetFile(
        path,
        buffer_size=1 << 20,
        pre_buffer=False,
        thrift_string_size_limit=STRING,
        thrift_container_size_limit=ENTRIES,
    )
    if table.metadata.num_rows > ROWS:
        raise UnreadableError(f"has {table.metadata.num_rows:,} rows; accepted: at most {ROWS:,}")
    _check(table.schema_arrow.names, table.metadata.num_columns)
    return table.iter_batches(batch_size=BATCH, use_threads=False)


def _arrow(path: str) -> Iterator[Any]:
    """A stream, as the datasets library saves one, or a file."""
    import pyarrow as pa

    with open(path, "rb") as file:
        whole = file.read(6) == b"ARROW1"
    reader = pa.ipc.open_file(path) if whole else pa.ipc.open_stream(pa.OSFile(path))
    _check(reader.schema.names, len(reader.schema.names))
    batches = (reader.get_batch(number) for number in range(reader.num_record_batches)) if whole else reader
    for batch in batches:
        yield from (batch.slice(start, BATCH) for start in range(0, batch.num_rows, BATCH))


def _check(names: list[str], columns: int) -> None:
    if columns > COLUMNS:
        raise UnreadableError(f"has {columns:,} columns; accepted: at most {COLUMNS:,}")
    if twice := repeated(names):
        raise UnreadableError(f"has two columns of the name {twice[:50]!r}")


def repeated(names: Iterable[str]) -> str | None:
    """A name that occurs more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _row(record: dict[str, Any]) -> Row:
    """A record as a row: without nulls, empty maps and the index that pandas writes; None: too large."""
    try:
        plain, _ = _plain(record, ROW_BYTES)
    except _Full:
        return None
    row = {name: value for name, value in plain.items() if not name.startswith("__index_level_")}
    if row.get("labels") == []:
        del row["labels"]
    return row


def _plain(value: Any, room: int) -> tuple[Any, int]:
    """A value in JSON's types, and what is left of `room`: null members dropped, maps and decimals as objects and
    numbers.
    """
    if isinstance(value, list) and value and all(isinstance(member, tuple) for member in value):
        value = {name if isinstance(name, str | int) else Odd(repr(name)[:100]): member for name, member in value}
    room -= 8 + (len(value) if isinstance(value, str | bytes) else 0)
    if room < 0:
        raise _Full
    if isinstance(value, dict):
        members = {}
        for name, member in value.items():
            if member is not None:
                members[name], room = _plain(member, room)
        return members, room
    if isinstance(value, list):
        entries = []
        for member in value:
            entry, room = _plain(member, room)
            entries.append(entry)
        return entries, room
    if isinstance(value, Decimal) and value.is_finite():
        return (int(value) if value == value.to_integral_value() else float(value)), room
    known = value is None or isinstance(value, str | int | float | bytes)
    return (value if known else Odd(repr(value)[:100])), room
