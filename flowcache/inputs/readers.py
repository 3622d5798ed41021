"""Manifest rows from JSON Lines, CSV and Parquet files: what is broken is reported, the rest is read."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from flowcache.errors import Problem, UnreadableError, masked
from flowcache.inputs.parquet import ROW_BYTES, parquet_rows, repeated
from flowcache.inputs.sandbox import Sandbox
from flowcache.inputs.schema import NESTED_FIELDS, REAL_FIELDS, WHOLE_FIELDS, path_name, shown, usable_id
from flowcache.inputs.told import Told
from flowcache.inputs.urls import Access

NumberedRow = tuple[int, dict[str, Any]]

FILE_LIMIT = 2 << 30  # bytes
LINE_LIMIT = 16 << 20  # bytes
COLUMN_LIMIT = 1000
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


def read_rows(url: str, access: Access | None = None) -> tuple[list[NumberedRow], list[Problem]]:
    """All that `rows_of` gives, and the problems."""
    told = Told()
    with Sandbox(access, most=1) as sandbox:
        return list(rows_of(url, sandbox, told)), told.problems


def rows_of(url: str, sandbox: Sandbox, told: Told) -> Iterator[NumberedRow]:
    """The rows of a manifest with their numbers, one by one; `told` gets a problem for each that cannot be read.

    The number is the line on which the row begins (JSON Lines, CSV: the header is line 1) or the record
    (Parquet), from 1. Nothing is raised for bad input; a row with a problem is left out.
    """
    reader = _Reader(url, sandbox, told)
    try:
        with sandbox.opened(url, FILE_LIMIT) as file:
            yield from reader.read(file)
    except UnreadableError as error:
        reader.problem(str(error))
    except OSError as error:
        reader.problem(f"cannot be read ({masked(str(error))})")


class _Reader:
    """The rows of one file, and its problems."""

    def __init__(self, url: str, sandbox: Sandbox, told: Told):
        self.name, self.file = url.partition("?")[0] if "://" in url else url, masked(url)
        self.sandbox, self.told, self.none = sandbox, told, True  # none: neither row nor problem yet

    def problem(self, message: str, row: int | None = None, field: str = "", video: str | None = None) -> None:
        self.none = False
        self.told.add([Problem(self.file, field, message, row, video)])

    def read(self, file: BinaryIO) -> Iterator[NumberedRow]:
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
        yield from {"JSON Lines": self._json_lines, "CSV": self._csv, "Parquet": self._parquet}[kind](file)
        if self.none:
            self.problem("has no rows: a manifest has at least one")

    def _json_lines(self, file: BinaryIO) -> Iterator[NumberedRow]:
        first, good = b"", False
        for number, line in _lines(file):
            if line is None or line.strip():
                first = first or (line or b'{"').strip()
                for row in self._row(number, lambda line=line: _json_object(line)):
                    good = True
                    yield row
        if good or not first:
            return
        suffix = self.name[self.name.rfind(".") :]
        if first.startswith(b"[") or first == b"{":  # one problem says more than one for each line
            self.told.clear()
            self.problem(f"is named {suffix} but holds JSON over many lines; accepted: one object a line")
        elif not first.startswith(b"{"):
            self.told.clear()
            self.problem(f"is named {suffix} but its lines are no JSON; accepted: one object a line")

    def _csv(self, file: BinaryIO) -> Iterator[NumberedRow]:
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
                yield from self._row(number, lambda record=record: _csv_row(names, record))

    def _parquet(self, file: BinaryIO) -> Iterator[NumberedRow]:
        for number, record in parquet_rows(file.name, self.sandbox, FILE_LIMIT):
            yield from self._row(number, lambda record=record: _parquet_row(record))

    def _row(self, number: int, read: Callable[[], dict[str, Any]]) -> Iterator[NumberedRow]:
        """What `read` gives; the fault that it raises is a problem."""
        try:
            row = read()
        except _Fault as fault:
            return self.problem(str(fault), number, fault.field, usable_id(fault.id))
        self.none = False
        yield number, row


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
    if twice := repeated(name for name, _ in pairs):
        raise _Fault("is given twice in one object", path_name((twice,)), found.get("id"))
    return found


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
    if len(names) > COLUMN_LIMIT:
        return _Fault(f"has {len(names):,} columns; accepted: at most {COLUMN_LIMIT:,}")
    names = [name.strip() for name in names]
    separator = re.search(r"[;\t|]", names[0]) if len(names) == 1 else None
    if separator:
        return _Fault(f"the columns are separated by {shown(separator[0])}; accepted: commas")
    if not all(names) or any(_undecoded(name) for name in names):
        return _Fault("a column has no name" if not all(names) else "a column's name is not UTF-8")
    twice = repeated(names)
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


def cell_value(name: str, text: str) -> Any:
    """What a CSV cell of the column would say. ValueError where it can't be read."""
    cell = _number(text) if name in WHOLE_FIELDS + REAL_FIELDS else text
    return _unflattened({name: cell})[name]


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


def _parquet_row(record: dict[str, Any] | None) -> dict[str, Any]:
    if record is None:
        raise _Fault(f"holds more than {ROW_BYTES >> 20} MiB")
    return _unflattened(record)
