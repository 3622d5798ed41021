"""What a checkpoint is, and what is wrong with it: read off its headers, without its weights."""

from dataclasses import dataclass, field
from pathlib import Path

from flowcache.errors import InputError, Problem
from flowcache.families.base import FAMILIES, Config
from flowcache.families.codecs import codec_part
from flowcache.families.layouts import Layout, layout_of
from flowcache.families.magi.captions import read_special_tokens
from flowcache.families.registry import SPEC_FILE, find
from flowcache.models.part import Part
from flowcache.models.text import load_tokenizer, text_part
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

    def note(self, error: InputError) -> None:
        self.problems += [problem for problem in error.problems if problem not in self.problems]


def check(path: Path) -> Report:
    """Every fault of a checkpoint in any layout, given its folder or config file; raises nothing for a damaged one."""
    report = Report()
    try:
        layout = layout_of(path)
        if layout:
            report.layout, report.family = layout.name, layout.family
            report.problems += layout.missing()
        report.spec = find(str(path))
        report.family = report.spec.family
    except InputError as error:
        report.note(error)
    if report.layout:
        _look(layout, report)
    return report


def _look(layout: Layout, report: Report) -> None:
    """Into each part that is there."""
    makers = {
        "transformer": lambda _: FAMILIES[layout.family].part(layout),
        "vae": codec_part,
        "text_encoder": text_part,
    }
    faulty = {Path(problem.file) for problem in report.problems}
    for name, make in makers.items():
        path = getattr(layout, name)
        config = layout.config if name == "transformer" else path / "config.json"
        if not path.exists() or config in faulty:
            continue
        try:
            part: Part = make(path)
        except InputError as error:
            report.note(error)
            continue
        report.parts[name] = PartReport(part.numbers, part.precision)
        report.problems += part.problems()
        if name == "transformer":
            report.config = part.module.config
    if layout.special_tokens and layout.special_tokens.exists() and report.config:
        try:
            read_special_tokens(layout.special_tokens, report.config.text_dim)
        except InputError as error:
            report.note(error)
    if layout.tokenizer.exists():
        try:
            load_tokenizer(layout.tokenizer)
        except InputError as error:
            report.note(error)


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
