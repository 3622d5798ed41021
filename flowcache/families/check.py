"""What a checkpoint is, and what is wrong with it: read off its headers, without its weights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flowcache.errors import InputError, Problem
from flowcache.families.base import Config, Family
from flowcache.families.codecs import codec_part
from flowcache.families.known import PackageError
from flowcache.families.layouts import Layout
from flowcache.families.registry import SPEC_FILE, find, locate
from flowcache.models.part import Part
from flowcache.records import ModelSpec

NAMED = 3  # faults that the message of `sound` spells out


@dataclass(frozen=True)
class PartReport:
    """`numbers`: learned ones on disk; `precision`: their dtypes there."""

    numbers: int
    precision: str


@dataclass
class Report:
    """What `check` found; `spec` and `config` are None where they can't be read."""

    family: str | None = None
    layout: str | None = None
    spec: ModelSpec | None = None
    config: Config | None = None
    parts: dict[str, PartReport] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def note(self, problems: Iterable[Problem]) -> None:
        """Those that are new."""
        self.problems += [problem for problem in problems if problem not in self.problems]


def check(path: Path) -> Report:
    """Every fault of a checkpoint in any layout, given its folder or config file; raises nothing for a damaged one.

    PackageError where its family can't be used.
    """
    report, found = Report(), None
    try:
        found = locate(path)
        if found:
            report.family, report.layout = found[0].name, found[1].name
            report.problems += found[1].missing()
        report.spec = find(str(path))
    except PackageError:
        raise
    except InputError as error:
        report.note(error.problems)
    if found:
        _look(*found, report)
    return report


def _look(family: Family, layout: Layout, report: Report) -> None:
    """Into each part that is there."""
    makers: dict[str, Callable[[Path], Part | None]] = {
        "transformer": lambda _: family.part(layout),
        "vae": codec_part,
        "text_encoder": family.text_part,
    }
    faulty = {Path(problem.file) for problem in report.problems}
    for name, make in makers.items():
        path = getattr(layout, name)
        if path is None or not path.exists():
            continue
        config = layout.config if name == "transformer" else path / "config.json"
        if config in faulty:
            continue
        try:
            part = make(path)
        except InputError as error:
            report.note(error.problems)
            continue
        if part is None:
            continue
        report.parts[name] = PartReport(part.numbers, part.precision)
        report.problems += part.problems()
        if name == "transformer":
            report.config = part.module.config
    report.note(family.damage(layout, report.config))


def sound(name: str) -> ModelSpec:
    """`find`, and the headers of a published checkpoint's weights looked through; InputError names the damage."""
    spec = find(name)
    folder = Path(spec.path)
    problems = [] if (folder / SPEC_FILE).exists() else check(folder).problems
    if problems:
        faults = "; ".join(map(str, problems[:NAMED]))
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise InputError([Problem("model", "", f"{name!r} is damaged: {faults}{more}")])
    return spec
