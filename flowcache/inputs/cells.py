"""CSV records, and cells of any table that hold what a row nests: numbers, JSON, labels in columns of their own."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flowcache.inputs.lines import LINE_LIMIT, RowFault, json_value, undecoded
from flowcache.inputs.parquet import repeated
from flowcache.inputs.schema import NESTED_FIELDS, REAL_FIELDS, WHOLE_FIELDS, path_name, shown

COLUMN_LIMIT = 1000
Record = list[str] | RowFault


class Texts:
    """Lines of a CSV file as text, counted. Bytes that are not UTF-8 become lone surrogates for now.

    fault: is told what is wrong with a line, and its number.
    """

    def __init__(self, lines: Iterable[tuple[int, bytes | None]], fault: Callable[[str, int], None]):
        self.lines, self.fault, self.number = lines, fault, 0

    def __iter__(self) -> Iterator[str]:
        for number, line in self.lines:
            self.number = number
            if line is None:
                self.fault(f"is longer than {LINE_LIMIT >> 20} MiB", number)
            yield "\n" if line is None else line.decode(errors="surrogateescape")


def csv_rows(texts: Texts) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
    """(first line, what reads it, or raises its RowFault) of every record. RowFault, its `id` the line: no header."""
    records = _records(texts)
    start, header = next(records, (1, RowFault("has no header")))
    if isinstance(header, RowFault):
        raise RowFault(str(header), id=start)
    names = [name.strip() for name in header]
    if fault := _header_fault(names):
        raise RowFault(fault, id=start)
    for number, record in records:
        yield number, lambda record=record: _csv_row(names, record)


def _records(texts: Texts) -> Iterator[tuple[int, Record]]:
    """(first line, cells) of each record that has any, or what is wrong with it. Excel keeps rows without any."""
    reader = csv.reader(texts, strict=True)
    while True:
        start = texts.number + 1
        try:
            record = next(reader)
            if any(cell and not cell.isspace() for cell in record):
                yield start, record
        except StopIteration:
            return
        except csv.Error as error:
            unclosed = "unexpected end of data" in str(error)
            yield start, RowFault(f"is broken CSV ({'a quote is never closed' if unclosed else error})")


def _header_fault(names: list[str]) -> str | None:
    if len(names) > COLUMN_LIMIT:
        return f"has {len(names):,} columns; accepted: at most {COLUMN_LIMIT:,}"
    separator = re.search(r"[;\t|]", names[0]) if len(names) == 1 else None
    if separator:
        return f"the columns are separated by {shown(separator[0])}; accepted: commas"
    if undecoded(names):
        return "a column's name is not UTF-8"
    twice = repeated(filter(None, names))
    return f"the column {shown(twice)} is given twice" if twice else None


def _csv_row(names: list[str], record: Record) -> dict[str, Any]:
    if isinstance(record, RowFault):
        raise record
    beyond = record[len(names) :]
    if len(record) < len(names) or any(cell.strip() for cell in beyond):
        cells = f"{len(record)} cell{'s' if len(record) > 1 else ''}"
        raise RowFault(f"has {cells}; accepted: {len(names)}, as in the header")
    row: dict[str, Any] = {}
    for place, (name, cell) in enumerate(zip(names, record, strict=False)):
        if undecoded((cell,)):
            raise RowFault("is not UTF-8", path_name((name,)), row.get("id"))
        if not (cell := cell.strip()) or cell == "NaN":
            continue
        if name:
            row[name] = number(cell) if name in WHOLE_FIELDS + REAL_FIELDS else cell.replace("\r\n", "\n")
        elif place or not cell.isdecimal():  # else the index that pandas and R write
            message = f"got {shown(cell)} in column {place + 1}, which has no name; accepted: a name in the header"
            raise RowFault(message, id=row.get("id"))
    return unflattened(row)


def number(cell: str) -> Any:
    """The cell as a number; as it is where it is none, for the check of its field to say so."""
    if re.fullmatch(r"[+-]?\d{1,40}", cell, re.ASCII):
        return int(cell)
    try:
        return float(cell) if "_" not in cell else cell
    except ValueError:
        return cell


def cell_value(name: str, text: str) -> Any:
    """What a CSV cell of the column would say. ValueError where it can't be read."""
    cell = number(text) if name in WHOLE_FIELDS + REAL_FIELDS else text
    return unflattened({name: cell})[name]


def unflattened(row: dict[str, Any]) -> dict[str, Any]:
    """JSON in text cells of nested fields parsed, and `label.<name>` columns gathered into labels. RowFault."""
    for name in NESTED_FIELDS:
        cell = row.get(name)
        if isinstance(cell, str) and (name != "policy" or cell.lstrip().startswith("{")):
            try:
                row[name] = json_value(cell)
            except RowFault as fault:
                raise RowFault(f"{fault}; accepted: JSON in this cell", name, row.get("id")) from None
    flat = {name: row.pop(name) for name in list(row) if name.startswith("label.")}
    if flat:
        labels = row.setdefault("labels", {})
        for name, value in flat.items():
            if not isinstance(labels, dict) or name[6:] in labels:
                raise RowFault("is given in labels too; accepted: one of the two", path_name((name,)), row.get("id"))
            labels[name[6:]] = value
    return row
