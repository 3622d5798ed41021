"""Rows from Python: mappings, prompts and tables, with the numbers and paths of other libraries made plain."""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from flowcache.errors import InputError, Problem
from flowcache.inputs.cells import unflattened
from flowcache.inputs.lines import Line, RowFault
from flowcache.inputs.parquet import repeated
from flowcache.inputs.schema import usable_id
from flowcache.inputs.sources import Manifests
from flowcache.inputs.told import Told

NAME = "requests"  # how problems call what has no file
PLAIN = (str, bool, int, float, bytes, type(None))
DEEP = 20  # of one object in another; what is deeper the checks refuse
# A manifest's path or URL, a row or several, prompts, or a table: pandas, Arrow, Ray Data, Hugging Face.
Requests = str | os.PathLike[str] | Manifests | Mapping[str, Any] | Sequence[Any] | Iterable[Any]
ACCEPTED = "a manifest's path or URL, a row, or rows, prompts or paths in a list or table"


def manifests_of(requests: Any) -> str | Manifests | None:
    """What names files; None: the rows are there. InputError."""
    if isinstance(requests, str | Manifests):
        return requests
    if isinstance(requests, os.PathLike):
        return os.fsdecode(requests)
    if isinstance(requests, list | tuple) and requests and all(isinstance(each, os.PathLike) for each in requests):
        return Manifests(tuple(os.fsdecode(each) for each in requests))
    return None


def lines(requests: Any, told: Told) -> Iterator[Line]:
    """The rows of what is no file, counted from 1. told: gets those that can't be read. InputError: nothing that holds
    rows."""
    table = is_table(requests)
    for number, row in enumerate(_rows(requests), 1):
        if isinstance(row, str):
            row = {"prompt": row}
        if not isinstance(row, Mapping):
            raise InputError([Problem(NAME, "", f"is {type(row).__name__}; accepted: an object or a prompt", number)])
        fields = {name: plain(value) for name, value in row.items() if value is not None}
        try:
            if table and all(isinstance(name, str) for name in fields):  # as read_csv has made it of a manifest
                fields = unflattened({name: value for name, value in fields.items() if value is not None})
        except RowFault as fault:
            told.add([Problem(NAME, fault.field, str(fault), number, usable_id(fault.id))])
            continue
        yield Line(number, fields)


def is_table(requests: Any) -> bool:
    """Of pandas, Polars, Arrow or Ray. InputError where a column would hide another one."""
    if isinstance(requests, Mapping | list | tuple) or not hasattr(requests, "columns"):
        return False
    names = getattr(requests, "column_names", requests.columns)
    if twice := repeated(str(name) for name in (() if callable(names) else names)):  # a method of Ray's
        raise InputError([Problem(NAME, twice[:50], "is the name of two columns; accepted: one of them")])
    return True


def _rows(requests: Any) -> Iterable[Any]:
    if isinstance(requests, Mapping):
        return [requests]
    if hasattr(requests, "to_dicts"):  # Polars
        return requests.to_dicts()
    if hasattr(requests, "to_pylist"):  # Arrow
        mapped = {"maps_as_pydicts": "lossy"} if hasattr(requests, "column_names") else {}  # else pairs in a list
        return requests.to_pylist(**mapped)
    if hasattr(requests, "iter_rows"):  # Ray Data
        return requests.iter_rows()
    if hasattr(requests, "iterrows"):  # pandas
        return requests.to_dict("records")
    if isinstance(requests, Iterable) and not isinstance(requests, bytes | bytearray):
        return requests  # Hugging Face's data sets among them, which yield a row at a time
    raise InputError([Problem(NAME, "", f"is {type(requests).__name__}; accepted: {ACCEPTED}")])


def plain(value: Any, depth: int = 0) -> Any:
    """In JSON's types, as far as it has them: numbers of NumPy, paths, gaps of pandas, pictures of PIL as bytes."""
    if type(value) in PLAIN or depth > DEEP:
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {name: plain(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each, depth + 1) for each in value]
    return _foreign(value)


def _foreign(value: Any) -> Any:
    name = type(value).__name__
    if name in ("NAType", "NaTType"):
        return None
    if callable(getattr(value, "tolist", None)):  # NumPy's numbers and arrays
        return value.tolist()
    if callable(getattr(value, "tobytes", None)) and callable(getattr(value, "save", None)):  # PIL
        return {"bytes": _png(value)}
    return value


def _png(picture: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
