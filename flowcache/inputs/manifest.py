"""Manifest rows to render requests: every default filled in, every fault found before anything starts."""

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from flowcache.errors import InputError, MediaError, Problem, masked
from flowcache.families.known import family
from flowcache.inputs.lines import Line
from flowcache.inputs.row import (
    Place,
    ReadRow,
    check_pictures,
    check_tail,
    check_without_model,
    look,
    shots,
    windows,
)
from flowcache.inputs.row_policy import policy
from flowcache.inputs.schema import RowDefaults, shown, usable_id
from flowcache.inputs.told import Told
from flowcache.models.json_files import read_object
from flowcache.records import MediaInfo, ModelSpec, RenderRequest, said, write_rate

SpecOf = Callable[[str], ModelSpec]  # raises InputError for an unknown model
# (url as written, "image" or "video", the manifest that says so, "" where there is but one); raises MediaError
Named = tuple[str, str, str]
Probe = Callable[[str, str, str], MediaInfo]
Media = dict[Named, MediaInfo | MediaError]
MEDIA = {"image": "image", "video": "video", "end_image": "image"}  # fields that name a file, and its kind
PROBES_AT_ONCE = 8
TABLE_LIMIT = 100_000_000  # bytes, of what `submit` wrote
BATCH = 512  # rows that are looked at together
ALIKE = 100_000  # rows without id that are remembered as written, where only their number is of interest


def validate(
    rows: Iterable[Line],
    file: str,
    spec_of: SpecOf,
    defaults: RowDefaults,
    probe: Probe,
    told: Told | None = None,
    thorough: bool = True,
    places: dict[str, Place] | None = None,
) -> tuple[list[RenderRequest], list[Problem], list[Problem]]:
    """The requests of all rows without fault, all faults, and warnings (words a tiny model does not know).

    `rows`: few are in memory at a time; `file`: the manifest of those that name none; `spec_of` is called once for each
    model; `probe` once for each picture or video, from several threads. `told`: where faults go. `thorough`: False to
    open no more pictures and videos once so many faults are known that further ones are only counted. `places`: is told
    where each request stands, by id.
    """
    manifest, told, warned = _Manifest(file, spec_of, defaults), told or Told(), Told()
    requests, media, source = list[RenderRequest](), Media(), iter(rows)
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        while batch := list(islice(source, BATCH)):
            read = [manifest.read(line, told.full) for line in batch]
            if thorough or not told.full:
                media |= _probed(read, probe, media, pool)
            for row in read:
                if found := manifest.request(row, media):
                    requests.append(found)
                    if places is not None:
                        places[found.id] = row.place
                told.add(row.problems)
                warned.add(row.warnings)
    return requests, told.problems, warned.problems


class _Manifest:
    """What is known while the rows are checked one by one: the models and ids met so far."""

    def __init__(self, file: str, spec_of: SpecOf, defaults: RowDefaults):
        self.files, self.spec_of, self.defaults = {"": masked(file)}, spec_of, defaults
        self.specs: dict[str, ModelSpec | str] = {}  # or why there is none
        self.taken: dict[str, Place] = {}  # id in lower case -> row that has it
        self.written = set[int]()  # hashes of rows without id

    def read(self, line: Line, brief: bool = False) -> ReadRow:
        """Check the row's types and ranges, and take its id."""
        if line.file not in self.files:
            self.files[line.file] = masked(line.file)
        row = ReadRow(self.files[line.file], line.number, brief, base=line.file)
        if given := usable_id(line.fields.get("id")):
            first = self._claim(given, row)
            if first == row.place:
                row.video = given
            else:
                row.fault(("id",), f"{shown(given)} is the id of {_told(first, row)} too; accepted: an id of its own")
        elif brief and self._again(line.fields):
            row.fault((), "is written as another row is")  # which has its id, or its fault
            return row
        row.read(line.fields)
        return row

    def _again(self, fields: dict[str, Any]) -> bool:
        """Whether such a row has been here."""
        written = hash(repr(fields))
        if written in self.written:
            return True
        if len(self.written) < ALIKE:
            self.written.add(written)
        return False

    def _claim(self, name: str, row: ReadRow) -> Place:
        """Take an id, which no other row may have, nor one that differs in case only: the row that has it."""
        return self.taken.setdefault(name.lower(), row.place)

    def request(self, row: ReadRow, media: Media) -> RenderRequest | None:
        """The finished request; None after any fault. Faults of independent fields are all found."""
        if row.brief and row.problems:
            return None
        found, model = _opened(row, media), row.says.model or self.defaults.model
        spec = self._spec(row, model)
        if spec is None:
            check_without_model(row)
            return None
        values = look(row, spec, self.defaults)
        spec = windows(row, spec, values)
        values["shots"] = shots(row, spec, values["fps"], self.defaults)
        if row.brief and row.problems:
            return None
        values["policy"] = policy(row, spec, self.defaults.policy, values["solver"])
        unsaid = row.says.ar_step is None and self.defaults.ar_step is None
        if unsaid and family(spec.family).finds_lag(values, spec):
            values["ar_step"] = None
        check_pictures(row, spec, values["shots"])
        if "video" in found and values["fps"]:
            check_tail(row, found["video"], spec, values["fps"])
        if row.problems:
            return None
        values |= {"model": model} | {name: getattr(row.says, name) for name in MEDIA}
        return self._finished(row, values, found)

    def _finished(self, row: ReadRow, values: dict[str, Any], media: dict[str, MediaInfo]) -> RenderRequest | None:
        values["guidance"] = float(values["guidance"])
        name = row.says.id or content_id(values)
        first = self._claim(name, row)
        if first != row.place:
            accepted = "accepted: an id of its own, or another seed"
            row.fault(("id",), f"is missing, and the row asks for the same video as {_told(first, row)}; {accepted}")
            return None
        if values["seed"] is None:
            values["seed"] = default_seed(name)
        for field, info in media.items():
            values |= {field: info.url, "end_image_sha256" if field == "end_image" else "media_sha256": info.sha256}
        return RenderRequest(**values, id=name, labels=row.says.labels or {}, priority=row.says.priority or 0)

    def _spec(self, row: ReadRow, name: str) -> ModelSpec | None:
        if not row.good("model"):
            return None
        if name not in self.specs:
            try:
                self.specs[name] = self.spec_of(name)
            except InputError as error:
                said = (problem.message if problem.file == "model" else str(problem) for problem in error.problems)
                self.specs[name] = "; ".join(said)
        found = self.specs[name]
        if isinstance(found, ModelSpec):
            return found
        row.fault(("model",), found)
        return None


def media_table(path: Path) -> dict[str, str]:
    """What `submit` wrote of where it put media, by what rows call them. InputError."""
    found = read_object(path, "table of media", TABLE_LIMIT)
    wrong = [Problem(str(path), name[:200], f"got {shown(where)}; accepted: a path or URL")
             for name, where in found.items() if not (isinstance(where, str) and where.strip())]  # fmt: skip
    if wrong:
        raise InputError(wrong)
    return found


def _told(place: Place, row: ReadRow) -> str:
    """Another row, as one that stands in the same manifest or not says it."""
    return f"row {place[1]}" if place[0] == row.file else f"{place[0]} row {place[1]}"


def _probed(rows: list[ReadRow], probe: Probe, known: Media, pool: ThreadPoolExecutor) -> Media:
    """Every distinct picture and video that is not known, opened: what it is, or why it is not."""

    def attempt(media: Named) -> MediaInfo | MediaError:
        try:
            return probe(*media)
        except MediaError as error:
            return error

    named = ((getattr(row.says, name), kind, row.base) for row in rows for name, kind in MEDIA.items())
    wanted = list(dict.fromkeys(media for media in named if media[0] and media not in known))
    return dict(zip(wanted, pool.map(attempt, wanted), strict=True))


def _opened(row: ReadRow, media: Media) -> dict[str, MediaInfo]:
    """What the row's pictures and video are, by field; {} without any."""
    if row.says.image and row.says.video:
        row.fault(("video",), "is given together with image; accepted: one of the two")
    found = {}
    for name, kind in MEDIA.items():
        url = getattr(row.says, name)
        info = media.get((url, kind, row.base))
        if isinstance(info, MediaInfo):
            found[name] = info
        elif info is not None:
            row.fault((name,), refusal(url, kind, info))
    return found


def refusal(url: str, kind: str, error: MediaError) -> str:
    """What is said of a picture or video that cannot be used."""
    accepted = f"; accepted: {'a picture' if kind == 'image' else 'a video'} that can be opened and decoded"
    return f"{shown(url)} {error}{'' if 'accepted:' in str(error) else accepted}"


def content_id(values: dict[str, Any]) -> str:
    """The id of a row without one: rows that would render the same get the same."""
    content = {
        **said(values),
        "fps": write_rate(values["fps"]),
        "shots": [[shot.prompt, shot.frames, shot.cut] for shot in values["shots"]],
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "v-" + hashlib.sha256(canonical.encode()).hexdigest()[:16]


def default_seed(video_id: str) -> int:
    """32 bits that depend on the id alone, so that a row keeps its noise when the manifest around it changes."""
    return int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:4], "big")
