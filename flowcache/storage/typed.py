"""What JSON from the store may hold: nothing that a table, a calendar or a terminal has no room for."""

import json
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

INT64 = 1 << 63
LATEST = 253_402_300_800  # the year 10000: floats of documents are moments, and how long something took; seconds


def read_json(data: bytes) -> Any:
    """What `canonical` could have written; ValueError for NaN, infinities and halves of a pair of characters, which
    no table, event or terminal takes."""
    fields = json.loads(data, parse_constant=_no_number)
    if b"\\u" in data:  # escaped: only so a half comes through
        json.dumps(fields, ensure_ascii=False).encode()
    return fields


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def typed(document: Any) -> Any:
    """The document itself; TypeError where a field, or a value in it, is of another type than it is declared, or a
    number that tables have no room for."""
    for name, (types, values) in types_of(type(document)).items():
        value = getattr(document, name)
        held = value.values() if isinstance(value, dict) else value if values and isinstance(value, list) else ()
        if not is_of(value, types) or (values and not all(is_of(one, values) for one in held)):
            raise TypeError(f"{name} is {value!r:.60}")
    return document


def is_of(value: Any, types: tuple[type, ...]) -> bool:
    """isinstance, but true and false are no numbers, and these are such as tables and calendars take."""
    if isinstance(value, bool):
        return bool in types
    most = LATEST if float in types else INT64
    return isinstance(value, types) and (not isinstance(value, int | float) or -most < value < most)


@cache
def types_of(kind: type) -> dict[str, tuple[tuple[type, ...], tuple[type, ...]]]:
    """By field what its value is an instance of, and what the values in it are; () for anything."""
    return {name: (tuple(classes(hint)), tuple(values_of(hint))) for name, hint in get_type_hints(kind).items()}


def values_of(hint: Any) -> Iterator[type]:
    """What the values of a dict or list of the annotation are instances of; nothing for anything."""
    if isinstance(hint, UnionType):
        for part in get_args(hint):
            yield from values_of(part)
    elif get_origin(hint) in (dict, list) and get_args(hint)[-1] is not Any:
        yield from classes(get_args(hint)[-1])


def classes(hint: Any) -> Iterator[type]:
    """What a value of the annotation is an instance of."""
    if isinstance(hint, UnionType):
        for part in get_args(hint):
            yield from classes(part)
    elif get_origin(hint) is Literal:
        yield str
    else:
        yield from (float, int) if hint is float else (get_origin(hint) or hint,)
