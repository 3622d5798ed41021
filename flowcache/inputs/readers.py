"""Manifest rows from JSON Lines, CSV and Parquet files: what is broken is reported, the rest is read."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from flowcache.errors import Problem, masked
from flowcache.inputs.schema import NESTED_FIELDS, REAL_FIELDS, WHOLE_FIELDS, path_name, shown, usable_id
from flowcache.inputs.urls import Access, UnreadableError, opened

Rows = list[tuple[int, dict[str, Any]]]

FILE_LIMIT = 2 << 30  # bytes
LINE_LIMIT = 16 << 20  # bytes
ROW_LIMIT = 5_000_000  # of a Parquet file, whose bytes may unpack to far more
KINDS = {".jsonl": "JSON Lines", ".ndjson": "JSON Lines", ".csv": "CSV", ".parquet": "Parquet"}
MAGIC = (
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"PK\x03\x04", "a ZIP archive or spreadsheet"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
BOM = b"\xef\xbb\xbf"


class _Fault(ValueError):
    """What is wrong with a row or with one field of it; `id` is what the row has there, if known."""

    def __init__(self, message: str, field: str = "", id: Any = None):
        self.field, self.id = field, id
        super().__init__(message)


def read_rows(url: str, access: Access | None = None) -> tuple[Rows, list[Problem]]:
    """The rows of a manifest with their numbers, and a problem for each that cannot be read.

    The number is the line on which the row begins (JSON Lines, CSV: the header is line 1) or the record
    (Parquet), from 1. Nothing is raised for bad input; a row with a problem is left out. `access`: to s3:// URLs.
    """
    reader = _Reader(url)
    try:
        with opened(url, FILE_LIMIT, access) as file:
            reader.read(file)
    except UnreadableError as error:
        reader.problem(str(error))
    except OSError as error:
        reader.problem(f"cannot be read ({masked(str(error))})")
    return reader.rows, reader.problems


class _Reader:
    """Collects the rows and problems of one file."""

    def __init__(self, url: str):
        self.name, self.file = url.partition("?")[0] if "://" in url else url, masked(url)
        self.rows: Rows = []
        self.problems: list[Problem] = []

    def problem(self, message: str, row: int | None = None, field: str = "", video: str | None = None) -> None:
        self.problems.append(Problem(self.file, field, message, row, video))

    def read(self, file: BinaryIO) -> None:
        suffix = "." + self.name.rpartition(".")[2].lower()
        kind = KINDS.get(suffix)
        if kind is None:
            return self.problem("is named neither .jsonl, .ndjson, .csv nor .parquet: its name must say what it is")
        head = file.read(4096)
        file.seek(0)
        if not head.removeprefix(BOM).strip():
            return self.problem("is empty: a manifest has at least one row")
        found = _content(head)
        if kind == "CSV" and head.removeprefix(BOM).lstrip()[:1] in (b"{", b"["):
            found = "JSON"
        if found != ("a Parquet file" if kind == "Parquet" else "text"):
            return self.problem(f"is named {suffix} but holds {found}; accepted: {kind}, or a name that fits")
        {"JSON Lines": self._json_lines, "CSV": self._csv, "Parquet": self._parquet}[kind](file)
        if not self.rows and not self.problems:
            self.problem("has no rows: a manifest has at least one")

    def _json_lines(self, file: BinaryIO) -> None:
        first = b""
        for number, line in _lines(file):
            if line is None or line.strip():
                first = first or (line or b'{"').strip()
                self._row(number, lambda line=line: _json_object(line))
        if self.rows or not first:
            return
        suffix = self.name[self.name.rfind(".") :]
        if first.startswith(b"[") or first == b"{":  # one problem says more than one for each line
            self.problems = []
            self.problem(f"is named {suffix} but holds JSON over many lines; accepted: one object a line")
        elif not first.startswith(b"{"):
            self.problems = []
            self.problem(f"is named {suffix} but its lines are no JSON; accepted: one object a line")

    def _csv(self, file: BinaryIO) -> None:
        texts = _Texts(file, self)
        records = _records(texts)
        start, header = next(records, (1, []))
        while isinstance(header, list) and not header:
            start, header = next(records, (1, _Fault("has no header")))
        header = header if isinstance(header, _Fault) else _header_fault(header) or header
        if isinstance(header, _Fault):
            return self.problem(str(header), start)
        names = [name.strip() for name in header]
        for number, record in records:
            if record:
                self._row(number, lambda record=record: _csv_row(names, record))

    def _parquet(self, file: BinaryIO) -> None:
        try:
            table = pq.ParquetFile(file)
            if twice := _repeated(table.schema_arrow.names):
                return self.problem("is the name of two columns", field=path_name((twice,)))
            if table.metadata.num_rows > ROW_LIMIT:
                return self.problem(f"has {table.metadata.num_rows:,} rows; accepted: at most {ROW_LIMIT:,}")
            number = 0
            for batch in table.iter_batches(batch_size=4096):
                for record in batch.to_pylist():
                    number += 1
                    self._row(number, lambda record=record: _unflattened(_parquet_row(record)))
        except (pa.ArrowException, OSError, ValueError):
            self.problem("is a damaged or incomplete Parquet file")

    def _row(self, number: int, read: Any) -> None:
        """Keep what `read` gives, or the fault it raises."""
        try:
            self.rows.append((number, read()))
        except _Fault as fault:
            self.problem(str(fault), number, fault.field, usable_id(fault.id))


def _content(head: bytes) -> str:
    """What the beginning of a file shows it to be."""
    for magic, name in MAGIC:
        if head.startswith(magic):
            return name
    return "binary data" if b"\0" in head else "text"


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """(number, line) without the byte order mark; None in place of a line over the limit."""
    number = 0
    while line := file.readline(LINE_LIMIT):
        number += 1
        if len(line) < LINE_LIMIT or line.endswith(b"\n"):
            yield number, line.removeprefix(BOM) if number == 1 else line
            continue
        while (rest := file.readline(LINE_LIMIT)) and not rest.endswith(b"\n"):
            pass
        yield number, None


def _json_object(line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise _Fault(f"is longer than {LINE_LIMIT >> 20} MiB")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise _Fault(f"is not UTF-8 (byte 0x{line[error.start]:02x} at byte {error.start + 1})") from None
    value = _json(text)
    if not isinstance(value, dict):
        raise _Fault(f"is {shown(value)}; accepted: a JSON object {{...}} on each line")
    return value


def _json(text: str) -> Any:
    """The JSON value; NaN and Infinity pass, for the checks of the fields to name."""
    try:
        return json.loads(text, object_pairs_hook=_unrepeated)
    except json.JSONDecodeError as error:
        raise _Fault(f"is broken JSON ({error.msg.lower()} at character {error.pos + 1})") from None
    except RecursionError:
        raise _Fault("is JSON nested too deeply") from None
    except _Fault:
        raise
    except ValueError:  # Python refuses to convert such digits
        raise _Fault("holds a number of thousands of digits") from None


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if twice := _repeated(name for name, _ in pairs):
        raise _Fault("is given twice in one object", path_name((twice,)), found.get("id"))
    return found


def _repeated(names: Iterable[str]) -> str | None:
    """A name that occurs more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


class _Texts:
    """Lines of a CSV file as text, counted. Bytes that are not UTF-8 become lone surrogates for now."""

    def __init__(self, file: BinaryIO, reader: _Reader):
        self.lines, self.reader, self.number = _lines(file), reader, 0

    def __iter__(self) -> Iterator[str]:
        for number, line in self.lines:
            self.number = number
            if line is None:
                self.reader.problem(f"is longer than {LINE_LIMIT >> 20} MiB", number)
            yield "\n" if line is None else line.decode(errors="surrogateescape")


def _records(texts: _Texts) -> Iterator[tuple[int, list[str] | _Fault]]:
    """(first line, cells) of each CSV record, [] for a blank line; a fault in place of a broken one."""
    reader = csv.reader(texts, strict=True)
    while True:
        start = texts.number + 1
        try:
            yield start, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            unclosed = "unexpected end of data" in str(error)
            yield start, _Fault(f"is broken CSV ({'a quote is never closed' if unclosed else error})")


def _header_fault(names: list[str]) -> _Fault | None:
    names = [name.strip() for name in names]
    separator = re.search(r"[;\t|]", names[0]) if len(names) == 1 else None
    if separator:
        return _Fault(f"the columns are separated by {shown(separator[0])}; accepted: commas")
    if not all(names) or any(_undecoded(name) for name in names):
        return _Fault("a column has no name" if not all(names) else "a column's name is not UTF-8")
    twice = _repeated(names)
    return _Fault(f"the column {shown(twice)} is given twice") if twice else None


def _undecoded(text: str) -> bool:
    return re.search("[\udc80-\udcff]", text) is not None


def _csv_row(names: list[str], record: list[str] | _Fault) -> dict[str, Any]:
    if isinstance(record, _Fault):
        raise record
    if len(record) != len(names):
        cells = f"{len(record)} cell{'s' if len(record) > 1 else ''}"
        raise _Fault(f"has {cells}; accepted: {len(names)}, as in the header")
    row: dict[str, Any] = {}
    for name, cell in zip(names, record, strict=True):
        if _undecoded(cell):
            raise _Fault("is not UTF-8", path_name((name,)), row.get("id"))
        if cell := cell.strip():
            row[name] = _number(cell) if name in WHOLE_FIELDS + REAL_FIELDS else cell.replace("\r\n", "\n")
    return _unflattened(row)


def _number(cell: str) -> Any:
    """The cell as a number; as it is where it is none, for the check of its field to say so."""
    if re.fullmatch(r"[+-]?\d{1,40}", cell, re.ASCII):
        return int(cell)
    try:
        return float(cell) if "_" not in cell else cell
    except ValueError:
        return cell


def _unflattened(row: dict[str, Any]) -> dict[str, Any]:
    """JSON in text cells of nested fields parsed, and `label.<name>` columns gathered into labels."""
    for name in NESTED_FIELDS:
        cell = row.get(name)
        if isinstance(cell, str) and (name != "policy" or cell.lstrip().startswith("{")):
            try:
                row[name] = _json(cell)
            except _Fault as fault:
                raise _Fault(f"{fault}; accepted: JSON in this cell", name, row.get("id")) from None
    flat = {name: row.pop(name) for name in list(row) if name.startswith("label.")}
    if flat:
        labels = row.setdefault("labels", {})
        for name, value in flat.items():
            if not isinstance(labels, dict) or name[6:] in labels:
                raise _Fault("is given in labels too; accepted: one of the two", path_name((name,)), row.get("id"))
            labels[name[6:]] = value
    return row


def _parquet_row(record: dict[str, Any]) -> dict[str, Any]:
    """A record as a row: without nulls, empty maps and the index that pandas writes."""
    row = {name: value for name, value in _plain(record).items() if not name.startswith("__index_level_")}
    if row.get("labels") == []:
        del row["labels"]
    return row


def _plain(value: Any) -> Any:
    """A Parquet value in JSON's types: null members dropped, maps and decimals as objects and numbers."""
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        if value and all(isinstance(member, tuple) for member in value):
            return _plain(dict(value))
        return [_plain(member) for member in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value
