"""Rows as they are written, before anything is known of their fields: lines, JSON and faults."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from flowcache.inputs.parquet import repeated
from flowcache.inputs.schema import path_name, shown

LINE_LIMIT = 16 << 20  # bytes
BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A row: where it stands in its manifest, from 1, and what it says. file: the manifest, where there are several."""

    number: int
    fields: dict[str, Any]
    file: str = ""


class RowFault(ValueError):
    """What is wrong with a row or with one field of it; `id` is what the row has there, if known."""

    def __init__(self, message: str, field: str = "", id: Any = None):
        self.field, self.id = field, id
        super().__init__(message)


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
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


def text_of(line: bytes | None) -> str:
    """RowFault: it is too long, or no UTF-8."""
    if line is None:
        raise RowFault(f"is longer than {LINE_LIMIT >> 20} MiB")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise RowFault(f"is not UTF-8 (byte 0x{line[error.start]:02x} at byte {error.start + 1})") from None


def json_object(line: bytes | None) -> dict[str, Any]:
    """RowFault."""
    value = json_value(text_of(line))
    if not isinstance(value, dict):
        raise RowFault(f"is {shown(value)}; accepted: a JSON object {{...}} on each line")
    return value


def json_value(text: str) -> Any:
    """NaN and Infinity pass, for the checks of the fields to name. RowFault."""
    try:
        return json.loads(text, object_pairs_hook=_unrepeated)
    except json.JSONDecodeError as error:
        raise RowFault(f"is broken JSON ({error.msg.lower()} at character {error.pos + 1})") from None
    except RecursionError:
        raise RowFault("is JSON nested too deeply") from None
    except RowFault:
        raise
    except ValueError:  # Python refuses to convert such digits
        raise RowFault("holds a number of thousands of digits") from None


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if twice := repeated(name for name, _ in pairs):
        raise RowFault("is given twice in one object", path_name((twice,)), found.get("id"))
    return found


def undecoded(texts: Iterable[str]) -> bool:
    """Whether one holds bytes that were no UTF-8, as `surrogateescape` leaves them."""
    return any(re.search("[\udc80-\udcff]", text) for text in texts)
