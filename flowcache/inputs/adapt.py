"""Rows as people have them, in the fields of ours: what other programs call them, numbers for names, empty cells."""

import hashlib
import math
import os
import posixpath
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from flowcache.errors import Problem, masked
from flowcache.inputs.cells import cell_value
from flowcache.inputs.lines import Line, RowFault
from flowcache.inputs.parquet import Odd
from flowcache.inputs.schema import Row, path_name, shown, usable_id
from flowcache.inputs.sources import MEDIA
from flowcache.inputs.told import Told

Extra = Literal["labels", "ignore", "refuse"]
EXTRAS: tuple[Extra, ...] = ("labels", "ignore", "refuse")
NAMES = frozenset(Row.model_fields)
TEXTS = ("text", "caption")  # as data sets call a prompt
# Of the body of a request for a video, as OpenAI, vLLM-Omni and SGLang call them.
BODY = {
    "num_frames": "frames",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "input_reference": "image",
}
BATCH = {"custom_id", "method", "url", "body"}
SIZE = re.compile(r"\s*(\d{1,5})\s*[x×*]\s*(\d{1,5})\s*", re.I)


class Embedded:
    """Pictures and videos that lie inside a manifest, as files of their own, by what a row calls them then."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.files: dict[str, str] = {}

    def keep(self, data: bytes) -> str:
        name = f"sha256-{hashlib.sha256(data).hexdigest()}"
        if name not in self.files:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="flowcache-")
            path = os.path.join(self._folder.name, name)
            with open(path, "wb") as file:
                file.write(data)
            self.files[name] = path
        return name


def adapted(lines: Iterable[Line], file: str, told: Told, extra: Extra, embedded: Embedded) -> Iterator[Line]:
    """The rows in our fields. file: what problems name where a row does not; embedded: gets media inside rows."""
    for line in lines:
        try:
            yield line._replace(fields=_adapted(line.fields, extra, embedded))
        except RowFault as fault:
            given = usable_id(fault.id or line.fields.get("id"))
            told.add([Problem(masked(line.file or file), fault.field, str(fault), line.number, given)])


def _adapted(fields: Mapping[str, Any], extra: Extra, embedded: Embedded) -> dict[str, Any]:
    row = {name: _without_gaps(value) for name, value in fields.items() if not _gap(value)}
    if isinstance(row.get("body"), Mapping) and "custom_id" in row:
        row = _of_batch(row)
    _media(row, embedded)
    if "prompt" not in row and "shots" not in row:
        named = [name for name in TEXTS if isinstance(row.get(name), str)]
        if len(named) == 1:
            row["prompt"] = row.pop(named[0])
    given = row.get("id")
    if isinstance(given, float) and given.is_integer():  # as pandas has a column with a gap
        given = int(given)
    if isinstance(given, int) and not isinstance(given, bool) and abs(given) < 10**40:
        row["id"] = str(given)
    return _extras(row, extra) if extra != "refuse" else row


def _gap(value: Any) -> bool:
    """NaN is an empty cell."""
    return isinstance(value, float) and math.isnan(value)


def _without_gaps(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if not _gap(each)}
    return [_without_gaps(each) for each in value] if isinstance(value, list) else value


def _of_batch(row: dict[str, Any]) -> dict[str, Any]:
    """A line of a batch file as OpenAI's API takes it."""
    asked: dict[str, Any] = dict(row["body"])
    body = {BODY.get(name, name): value for name, value in asked.items() if value is not None}
    found = {name: value for name, value in row.items() if name not in BATCH} | {"id": row["custom_id"]}
    if "messages" in body or "input" in body:
        raise RowFault("is a request for text; accepted: an object with prompt", "body", row["custom_id"])
    if body.get("n") == 1:
        del body["n"]
    if isinstance(size := body.pop("size", None), str) and (sides := SIZE.fullmatch(size)):
        body |= {"width": int(sides[1]), "height": int(sides[2])}
    elif size is not None:
        raise RowFault(f"got {shown(size)}; accepted: WIDTHxHEIGHT, as 960x544", "body.size", row["custom_id"])
    if isinstance(seconds := body.get("seconds"), str):  # as OpenAI's own clients send them
        body["seconds"] = cell_value("seconds", seconds)
    if isinstance(metadata := body.pop("metadata", None), Mapping):
        found["labels"] = {**metadata, **found.get("labels", {})}
    return found | body


def _media(row: dict[str, Any], embedded: Embedded) -> None:
    """{bytes, path} as data sets hold pictures and videos, and `file_name` as folders of such do."""
    for name in ("image", "video", "end_image"):
        value = row.get(name)
        if not isinstance(value, Mapping) or not value.keys() <= {"bytes", "path"}:
            continue
        data, path = value.get("bytes"), value.get("path")
        if isinstance(data, bytes) and data:
            row[name] = embedded.keep(data)
        elif path:
            row[name] = path
        else:
            del row[name]
    named = row.get("file_name")
    if isinstance(named, str) and not row.keys() & {"image", "video"}:
        kind = MEDIA.get(posixpath.splitext(named.lower())[1])
        if kind is None:
            known = ", ".join(MEDIA)
            raise RowFault(f"got {shown(named)}; accepted: a picture or video ({known})", "file_name", row.get("id"))
        row[kind] = row.pop("file_name")


def _extras(row: dict[str, Any], extra: Extra) -> dict[str, Any]:
    """Fields that no row has, as labels or gone."""
    kept = {name: value for name, value in row.items() if name in NAMES}
    others = {name: value for name, value in row.items() if name not in NAMES and value is not None}
    if extra == "ignore" or not others:
        return kept
    labels = kept.get("labels") or {}
    if not isinstance(labels, Mapping):
        return kept  # a fault of its own
    for name in others:
        if name in labels:
            raise RowFault("is given in labels too; accepted: one of the two", path_name((name,)), row.get("id"))
    return kept | {"labels": {**labels, **{name: _label(value) for name, value in others.items()}}}


def _label(value: Any) -> Any:
    return value.written if isinstance(value, Odd) else value
