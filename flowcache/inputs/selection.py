"""Which rows of a manifest are meant (`--only`, `--where`, `--sample`, `--limit`), and what all are given (`--set`)."""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

from pydantic import ValidationError

from flowcache.errors import InputError, Problem
from flowcache.inputs.adapt import EXTRAS as EXTRAS
from flowcache.inputs.adapt import SIZE, Extra
from flowcache.inputs.cells import cell_value
from flowcache.inputs.lines import Line
from flowcache.inputs.schema import ACCEPTS, Row, faults, path_name, shown, usable_id
from flowcache.inputs.strangers import strangers
from flowcache.inputs.where import Where
from flowcache.inputs.written import suggestion
from flowcache.records import RenderRequest

PATTERN = "an id, or a pattern of one with *, ? and [abc]"
OF_A_ROW = ("id", "prompt", "shots", "image", "video", "end_image")  # what makes a row that one: not for all at once
SETTABLE = tuple(sorted(set(Row.model_fields) - set(OF_A_ROW)))
TOGETHER = {"seconds": ("frames",), "frames": ("seconds",)}  # what a field takes the place of, besides its own value


@dataclass(frozen=True)
class Selection:
    """only: ids or patterns of such; where: a condition; sample: so many rows, drawn by what they say, the same ones
    each time; limit: the first so many of what is left. values: fields that every row is given, whatever it says.
    extra: what becomes of fields that no row has; strict: what is doubtful of a row is a fault."""

    only: tuple[str, ...] = ()
    where: Where | None = None
    sample: int | None = None
    limit: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    extra: Extra = "refuse"
    strict: bool = False

    @property
    def all(self) -> bool:
        """Whether no row is left out."""
        return not (self.only or self.where or self.sample or self.limit)

    def rows(self, rows: Iterable[Line]) -> Iterator[Line]:
        """Those that may be meant, as they shall be read. A row without id may be one of `only`, by its content."""
        meant = (
            row
            for row in rows
            if self._named(row.fields.get("id")) and (not self.where or self.where.holds(row.fields))
        )
        if self.sample:
            drawn = heapq.nsmallest(self.sample, enumerate(meant), key=lambda each: _drawn(each[1]))
            meant = (row for _, row in sorted(drawn, key=lambda each: each[0]))
        if self.limit and not self.only:
            meant = islice(meant, self.limit)
        return (row._replace(fields=self._said(row.fields)) for row in meant)

    def requests(self, found: Iterable[RenderRequest]) -> list[RenderRequest]:
        """Of what came of `rows`, those that are meant."""
        good = [request for request in found if self._named(request.id)]
        return good[: self.limit] if self.only and self.limit else good

    def faults(
        self, found: Iterable[RenderRequest], problems: Iterable[Problem], file: str, ids: Iterable[str] = ()
    ) -> list[Problem]:
        """What of the selection meets no row. found, problems: what came of `rows`; ids: of all rows that have one."""
        bad = {problem.video for problem in problems}
        meant = [request.id for request in found] + [name for name in bad if name]
        if missed := strangers(self.only, {*meant, *ids}, file, "--only", patterns=True):
            return missed
        if not self.all and not meant and not bad:
            return [Problem(file, "", "has no row that is meant; accepted: a selection that leaves at least one")]
        return []

    def _named(self, given: Any) -> bool:
        name = usable_id(given)
        return name is None or not self.only or any(fnmatchcase(name, one) for one in self.only)

    def _said(self, fields: dict[str, Any]) -> dict[str, Any]:
        if not self.values:
            return fields
        gone = {name for said in self.values for name in TOGETHER.get(said, ())}
        said = {name: value for name, value in fields.items() if name not in gone} | dict(self.values)
        if isinstance(own := fields.get("labels"), Mapping) and "labels" in self.values:
            said["labels"] = {**own, **self.values["labels"]}
        return said


EVERY = Selection()


def _drawn(row: Line) -> bytes:
    """Where a row stands among those that are drawn: as random as a hash, and always there."""
    return hashlib.sha256(repr(sorted(row.fields.items(), key=lambda item: item[0])).encode(errors="replace")).digest()


def settings(written: Sequence[str], direct: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a Selection. written: as --set has them, NAME=VALUE; direct: options of their own, None: not given.
    InputError with every fault."""
    found, problems = {name: value for name, value in direct.items() if value is not None}, list[Problem]()
    said = {name: str(value) for name, value in found.items()}
    for one in written:
        name, equals, text = (part.strip() for part in one.partition("="))
        if not equals:
            problems.append(Problem("--set", "", f"got {shown(one)}; accepted: FIELD=VALUE"))
            continue
        if other := next((other for other in said if _overlap(name, other)), None):
            both = f"got {shown(text)}, and {other} is given as {shown(said[other])}"
            problems.append(Problem("--set", name, f"{both}; accepted: each once"))
        said[name] = text
        if name.startswith("labels."):
            found.setdefault("labels", {})[name.removeprefix("labels.")] = text
        elif name not in SETTABLE:
            why = "is a row's own" if name in OF_A_ROW else f"is no field of a row; {suggestion(name, SETTABLE)}"
            problems.append(Problem("--set", name, why))
        else:
            try:
                found[name] = cell_value(name, text)
            except ValueError as fault:
                problems.append(Problem("--set", name, f"{fault}; accepted: {ACCEPTS[name]}"))
    try:
        Row.model_validate(found)
    except ValidationError as error:
        problems += [Problem("--set", path_name(loc), message) for loc, message in faults(error, Row, ACCEPTS)]
    if {"seconds", "frames"} <= found.keys():
        problems.append(Problem("--set", "frames", "is given together with seconds; accepted: one of the two"))
    if problems:
        raise InputError(problems)
    return found


def _overlap(name: str, other: str) -> bool:
    """Whether one says what the other does: labels, and labels.team."""
    return name == other or name.startswith(f"{other}.") or other.startswith(f"{name}.")


def frame_size(written: str | None) -> dict[str, int]:
    """Of --size, such as 960x544: width and height in pixels. InputError."""
    if written is None:
        return {}
    found = SIZE.fullmatch(written)
    if found is None:
        raise InputError([Problem("--size", "", f"got {shown(written)}; accepted: WIDTHxHEIGHT in pixels, as 960x544")])
    return {"width": int(found[1]), "height": int(found[2])}
