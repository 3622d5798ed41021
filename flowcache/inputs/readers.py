"""Manifest rows from all that holds them: what is broken is reported, the rest is read."""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, BinaryIO

from flowcache.errors import Problem, UnreadableError, masked
from flowcache.inputs.cells import Texts, cell_value, csv_rows, unflattened
from flowcache.inputs.lines import BOM, Line, RowFault, json_object, lines_of, text_of
from flowcache.inputs.parquet import ROW_BYTES, table_rows
from flowcache.inputs.sandbox import Sandbox
from flowcache.inputs.schema import Row, usable_id
from flowcache.inputs.sources import (
    ENDINGS,
    FILE_LIMIT,
    MEDIA,
    STDIN,
    Manifests,
    Source,
    ending,
    sources,
    standard_input,
)
from flowcache.inputs.told import Told
from flowcache.inputs.unpacked import unpacked
from flowcache.inputs.urls import Access, OpenFile

CAPTION_LIMIT = 1 << 20  # bytes
MAGIC = (
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"PK\x03\x04", "a ZIP archive or spreadsheet"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF"),
    (b"\xff\xff\xff\xff", "an Arrow stream"),
    (b"ARROW1", "an Arrow file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
TABLES = {"Parquet": ("a Parquet file",), "Arrow": ("an Arrow stream", "an Arrow file")}
HEADER = re.compile(rb"[ \"']*(?:[^,;\t|\r\n]*[,;\t|])*[ \"']*(?:prompt|shots)[ \"']*(?:[,;\t|]|\r?$)", re.I | re.M)


def read_rows(url: str, access: Access | None = None) -> tuple[list[tuple[int, dict[str, Any]]], list[Problem]]:
    """Numbers and fields of all that `rows_of` gives, and the problems."""
    told = Told()
    with Sandbox(access, most=1) as sandbox:
        return [(line.number, line.fields) for line in rows_of(url, sandbox, told)], told.problems


def rows_of(manifests: str | Manifests, sandbox: Sandbox, told: Told) -> Iterator[Line]:
    """The rows of all that is named, one by one; `told` gets a problem for each that cannot be read.

    The number is the line on which the row begins (JSON Lines, CSV: the header is line 1) or the record (Parquet), from
    1. Nothing is raised for bad input; a row with a problem is left out.
    """
    names = (manifests,) if isinstance(manifests, str) else manifests.names
    silent, read = True, set[str]()

    def faulty(name: str, message: str) -> None:
        nonlocal silent
        silent = False
        told.add([Problem(name, "", message)])

    for source in sources(names, sandbox, faulty):
        if source.url in read:  # a pattern matches what is named, too
            continue
        read.add(source.url)
        reader = _Reader(source, sandbox, told, single=names == (source.url,))
        for line in reader.read():
            yield line if names == (source.url,) else line._replace(file=source.url)
        silent = silent and reader.none
    if silent:
        faulty(Manifests(names).name, "has no rows: a manifest has at least one")


class _Reader:
    """The rows of one file, and its problems. single: nothing else is read, so that it must have some."""

    def __init__(self, source: Source, sandbox: Sandbox, told: Told, single: bool):
        self.source, self.file, self.kind, self.single = source, masked(source.url), source.kind, single
        self.sandbox, self.told, self.none = sandbox, told, True  # none: neither row nor problem yet

    def problem(self, message: str, row: int | None = None, field: str = "", video: str | None = None) -> None:
        self.none = False
        self.told.add([Problem(self.file, field, message, row, video)])

    def read(self) -> Iterator[Line]:
        try:
            if self.kind == "pictures":
                yield from self._pictures()
                return
            with self._opened() as file:
                yield from self._content(file)
        except UnreadableError as error:
            self.problem(str(error))
        except OSError as error:
            self.problem(f"cannot be read ({masked(str(error))})")

    def _opened(self) -> AbstractContextManager[OpenFile]:
        if self.source.url == STDIN:
            return nullcontext(open(standard_input().name, "rb"))
        return self.sandbox.opened(self.source.url, FILE_LIMIT)

    def _content(self, file: OpenFile) -> Iterator[Line]:
        packed = self.source.packed
        head = file.peek(4096)[:4096]
        if self.source.url == STDIN:
            packed = {"gzip-compressed data": "gzip", "zstd-compressed data": "zstd"}.get(_looks(head), "")
        elif not self.kind:
            return self.problem(f"is named {ending(self.source.url)[0] or 'without an ending'}; {ENDINGS}")
        if packed:
            stream: BinaryIO = unpacked(file.name, packed, self.sandbox, FILE_LIMIT)
            head = stream.peek(4096)[:4096]
        else:
            stream = file
        if not head.removeprefix(BOM).strip():
            return self.problem("is empty: a manifest has at least one row") if self.single else None
        if self.source.url == STDIN:
            self.kind = _kind(head)
        elif fault := self._misnamed(head):
            return self.problem(fault)
        kinds = {"JSON Lines": self._json_lines, "CSV": self._csv, "text": self._text}
        yield from kinds[self.kind](stream) if self.kind in kinds else self._table(file)
        if self.none and self.single:
            self.problem("has no rows: a manifest has at least one")

    def _misnamed(self, head: bytes) -> str | None:
        found = _looks(head)
        if self.kind == "CSV" and head.removeprefix(BOM).lstrip()[:1] in (b"{", b"["):
            found = "JSON"
        if found in TABLES.get(self.kind, ("text",)):
            return None
        suffix = ending(self.source.url)[0]
        return f"is named {suffix} but holds {found}; accepted: {self.kind}, or a name that fits"

    def _json_lines(self, file: BinaryIO) -> Iterator[Line]:
        first, good = b"", False
        for number, line in lines_of(file):
            if line is None or line.strip():
                first = first or (line or b'{"').strip()
                for row in self._row(number, partial(json_object, line)):
                    good = True
                    yield row
        if good or not first:
            return
        suffix = ending(self.source.url)[0]
        if first.startswith(b"[") or first == b"{":  # one problem says more than one for each line
            self.told.clear()
            self.problem(f"is named {suffix} but holds JSON over many lines; accepted: one object a line")
        elif not first.startswith(b"{"):
            self.told.clear()
            self.problem(f"is named {suffix} but its lines are no JSON; accepted: one object a line")

    def _csv(self, file: BinaryIO) -> Iterator[Line]:
        try:
            for number, read in csv_rows(Texts(lines_of(file), self.problem)):
                yield from self._row(number, read)
        except RowFault as fault:
            self.problem(str(fault), fault.id)

    def _text(self, file: BinaryIO) -> Iterator[Line]:
        for number, line in lines_of(file):
            if line is None or line.strip():
                yield from self._row(number, lambda line=line: {"prompt": text_of(line).strip()})

    def _table(self, file: OpenFile) -> Iterator[Line]:
        for number, record in table_rows(self.kind, file.name, self.sandbox, FILE_LIMIT):
            yield from self._row(number, partial(_record, record))

    def _pictures(self) -> Iterator[Line]:
        folder = posixpath.basename(self.source.url)
        for number, (name, caption) in enumerate(self.source.pictures, 1):
            yield from self._row(number, partial(self._picture, folder, name, caption))

    def _picture(self, folder: str, name: str, caption: str) -> dict[str, Any]:
        stem, suffix = posixpath.splitext(name)
        if not caption:
            raise RowFault(f"{name} has no caption beside it; accepted: {posixpath.basename(stem)}.txt", "prompt")
        try:
            with self.sandbox.opened(f"{self.source.url}/{caption}", CAPTION_LIMIT) as file:
                text = text_of(file.read().removeprefix(BOM)).strip()
        except UnreadableError as error:
            raise RowFault(f"{caption} {error}", "prompt") from None
        own = usable_id(stem.replace("/", "-"))
        return ({"id": own} if own else {}) | {MEDIA[suffix.lower()]: f"{folder}/{name}", "prompt": text}

    def _row(self, number: int, read: Callable[[], dict[str, Any]]) -> Iterator[Line]:
        """What `read` gives, and what the folders' names say; the fault that it raises is a problem."""
        try:
            row = _placed(read(), self.source.columns)
        except RowFault as fault:
            return self.problem(str(fault), number, fault.field, usable_id(fault.id))
        self.none = False
        yield Line(number, row)


def _looks(head: bytes) -> str:
    """What the beginning of a file shows it to be."""
    for magic, name in MAGIC:
        if head.startswith(magic):
            return name
    return "binary data" if b"\0" in head else "text"


def _kind(head: bytes) -> str:
    """What comes without a name: tables say what they are, lines by how they begin."""
    if found := next((kind for kind, looks in TABLES.items() if _looks(head) in looks), None):
        return found
    head = head.removeprefix(BOM).lstrip()
    if head[:1] in (b"{", b"["):
        return "JSON Lines"
    return "CSV" if HEADER.match(head.partition(b"\n")[0]) else "text"


def _record(record: dict[str, Any] | None) -> dict[str, Any]:
    if record is None:
        raise RowFault(f"holds more than {ROW_BYTES >> 20} MiB")
    return unflattened(record)


def _placed(row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with what its folders say and it does not: fields, and labels."""
    known = {name: cell_value(name, value) for name, value in columns.items() if name in Row.model_fields}
    labels = {name.removeprefix("label."): value for name, value in columns.items() if name not in Row.model_fields}
    if labels and isinstance(own := row.get("labels", {}), Mapping):
        row = row | {"labels": labels | dict(own)}
    return known | row
