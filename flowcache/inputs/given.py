"""What a run is asked to render, from wherever it comes: read, brought to our fields, checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from flowcache.errors import Problem, masked
from flowcache.families.check import doubts, sound
from flowcache.families.settings import policy_faults
from flowcache.inputs.adapt import Embedded, adapted
from flowcache.inputs.lines import Line
from flowcache.inputs.manifest import validate
from flowcache.inputs.python_rows import NAME, Requests, lines, manifests_of
from flowcache.inputs.readers import rows_of
from flowcache.inputs.row import Place
from flowcache.inputs.sandbox import Sandbox
from flowcache.inputs.schema import RowDefaults, usable_id
from flowcache.inputs.seen import together, unseen
from flowcache.inputs.selection import EVERY, Selection
from flowcache.inputs.sources import Manifests
from flowcache.inputs.told import Told
from flowcache.records import MediaInfo, ModelSpec, RenderRequest


@dataclass(frozen=True)
class Given:
    """Rows, and what is needed to read and check them. access: what s3:// URLs are opened with; media: where pictures
    and videos lie, by what rows call them; private: they may lie at any address. embedded: gets those inside rows."""

    requests: Requests
    defaults: RowDefaults = field(default_factory=RowDefaults)
    selection: Selection = EVERY
    access: Mapping[str, Any] | None = None
    media: Mapping[str, str] | None = None
    private: bool = False
    embedded: Embedded = field(default_factory=Embedded)
    called: str | None = None  # as problems shall name them, and what they name by relative paths lies beside

    @cached_property
    def manifests(self) -> str | Manifests | None:
        """What names files; None: the rows are here. InputError."""
        return manifests_of(self.requests)

    @property
    def name(self) -> str:
        """How problems name them all, with credentials."""
        if self.called is not None:
            return self.called
        if self.manifests is None:
            return NAME
        return self.manifests if isinstance(self.manifests, str) else self.manifests.name

    @property
    def base(self) -> str:
        """The manifest of rows that name none; "": none."""
        return "" if self.manifests is None else self.name

    def rows(self, sandbox: Sandbox, told: Told) -> Iterator[Line]:
        found = lines(self.requests, told) if self.manifests is None else rows_of(self.manifests, sandbox, told)
        return adapted(found, self.name, told, self.selection.extra, self.embedded)


@dataclass(frozen=True)
class Checked:
    """requests: of the good rows; specs: of the models that these name; places: where each stands, by id."""

    requests: list[RenderRequest]
    problems: list[Problem]
    warnings: list[Problem]
    specs: dict[str, ModelSpec]
    places: dict[str, Place]


def checked(given: Given, thorough: bool = False) -> Checked:
    """All that is right and wrong with the rows. Starts nothing. thorough: see `validate`."""
    specs: dict[str, ModelSpec] = {}
    doubted: list[Problem] = []

    def spec_of(name: str) -> ModelSpec:
        specs[name] = sound(name)
        doubted.extend(doubts(specs[name]))
        return specs[name]

    selection, told, places, read, ids = given.selection, Told(), dict[str, Place](), 0, set[str]()
    with Sandbox(given.access, given.private) as sandbox:

        def probe(url: str, kind: str, file: str) -> MediaInfo:
            place = given.embedded.files.get(url) or (given.media or {}).get(url, url)
            return sandbox.probe(place, kind, file or given.base)

        def counted() -> Iterator[Line]:
            nonlocal read
            for line in given.rows(sandbox, told):
                read += 1
                if selection.only and (name := usable_id(line.fields.get("id"))):
                    ids.add(name)
                yield line

        rows = selection.rows(counted())
        found = validate(rows, given.name, spec_of, given.defaults, probe, told, thorough, places)
    good, problems, warnings = selection.requests(found[0]), *found[1:]
    if not read and not problems:
        problems.append(Problem(NAME, "", "is empty; accepted: at least one row"))
    else:
        problems += selection.faults(found[0], problems, masked(given.name), ids)
    warnings += unseen(good, specs, places)
    if selection.strict:
        doubtful = {(each.file, each.row) for each in warnings}
        good = [request for request in good if places[request.id] not in doubtful]
        problems, warnings = problems + warnings, []
    used = {request.model for request in good}
    problems += policy_faults(good, specs, masked(given.name))
    used_specs = {name: spec for name, spec in specs.items() if name in used}
    return Checked(good, problems, doubted + together(warnings), used_specs, places)
