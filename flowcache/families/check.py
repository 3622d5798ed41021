"""What a checkpoint is, and what is wrong with it: read off its headers, without its weights."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flowcache.errors import InputError, Problem, problems_of
from flowcache.families import calibrations
from flowcache.families.base import Config, Family
from flowcache.families.codecs import codec_part, latent_grid
from flowcache.families.known import PackageError, family
from flowcache.families.layouts import Layout
from flowcache.families.registry import BUNDLED, SPEC_FILE, checkpoint_of, find, folder_of, locate
from flowcache.models.formats import readable
from flowcache.models.part import Part
from flowcache.models.text import load_tokenizer
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
    warnings: list[Problem] = field(default_factory=list)

    def note(self, problems: Iterable[Problem]) -> None:
        """Those that are new."""
        self.problems += [problem for problem in problems if problem not in self.problems]


def check(path: Path, name: str | None = None) -> Report:
    """Every fault of a checkpoint in any layout, given its folder or config file; raises nothing for a damaged one.

    name: as it was given, for messages.
    PackageError where its family can't be used.
    """
    report, found, stale = Report(), None, list[Problem]()
    try:
        with readable(path):
            found = locate(checkpoint_of(path))
        if found:
            report.family, report.layout = found[0].name, found[1].name
            report.problems += _another(*found)
            if report.problems:
                return report
            report.warnings += _doubts(*found)
            with readable(path):
                report.problems += found[1].missing()
        report.spec = find(name or str(path))
    except PackageError:
        raise
    except InputError as error:
        stale = _stale(error)
        report.note(problem for problem in error.problems if problem not in stale)
    if found:
        _look(*found, report)
    report.note(stale)
    return report


def _stale(error: InputError) -> list[Problem]:
    """Of a calibration. Whatever is damaged makes it another checkpoint's, so the damage is told first."""
    return [problem for problem in error.problems if Path(problem.file).name == calibrations.FILE]


def _look(owner: Family, layout: Layout, report: Report) -> None:
    """Into each part that is there."""
    makers: dict[str, Callable[[Path], Part | None]] = {
        "transformer": lambda _: owner.part(layout),
        "vae": codec_part,
        "text_encoder": owner.text_part,
    }
    faulty = {Path(problem.file) for problem in report.problems}
    modules: dict[str, Any] = {}  # None: the family says nothing of its part
    for name, make in makers.items():
        path = getattr(layout, name)
        try:
            with readable(layout.root):
                if path is None or not path.exists() or _config(layout, name) in faulty:
                    continue
                part = make(path)
                modules[name] = part and part.module
                report.problems += part.problems() if part else []
        except InputError as error:
            report.note(error.problems)
            continue
        if part is None:
            continue
        report.parts[name] = PartReport(part.numbers, part.precision)
        if name == "transformer":
            report.config = part.module.config
    report.note(owner.damage(layout, report.config))
    report.note(_misfits(layout, modules, report))


def _config(layout: Layout, part: str) -> Path:
    return layout.config if part == "transformer" else getattr(layout, part) / "config.json"


def _misfits(layout: Layout, modules: Mapping[str, Any], report: Report) -> Iterator[Problem]:
    """Of parts that are sound each, and not of one model."""
    spec, config, vae, text = report.spec, report.config, modules.get("vae"), modules.get("text_encoder")
    grid = latent_grid(layout.vae, vae) if vae else None
    if spec and grid and grid != (wanted := (spec.channels, spec.time_stride, spec.space_stride)):
        said = "{} channels for {} frames of {} x {} pixels".format
        message = f"makes latents of {said(*grid, grid[2])}; the transformer takes {said(*wanted, wanted[2])}"
        yield Problem(str(layout.vae), "", message)
    made = getattr(text and text.config, "d_model", None)
    if config and made not in (None, config.text_dim):
        message = f"makes {made} numbers of a token; the transformer takes {config.text_dim}"
        yield Problem(str(layout.text_encoder), "", message)
    where, known = layout.tokenizer, getattr(text and text.config, "vocab_size", None)
    if where and where.exists() and modules.get("text_encoder", True):
        yield from problems_of(partial(load_tokenizer, where, known))


def _another(owner: Family, layout: Layout) -> list[Problem]:
    return [] if (layout.root / SPEC_FILE).exists() else owner.look_alike(layout)


def _doubts(owner: Family, layout: Layout) -> list[Problem]:
    return [] if (layout.root / SPEC_FILE).exists() else owner.doubts(layout)


def doubts(spec: ModelSpec) -> list[Problem]:
    """What speaks against a checkpoint and proves nothing."""
    owner = family(spec.family)
    return _doubts(owner, owner.layout(Path(spec.path)))


def sound(name: str) -> ModelSpec:
    """`find`, and the headers of its weights looked through but for bundled ones; InputError names the damage."""
    try:
        spec = find(name)
    except InputError as error:
        if _stale(error) and len(problems := check(folder_of(name)).problems) > len(error.problems):
            raise _damaged(name, problems) from None
        raise
    if name not in BUNDLED and (problems := check(folder_of(name), name).problems):
        raise _damaged(name, problems)
    return spec


def _damaged(name: str, problems: list[Problem]) -> InputError:
    faults = "; ".join(map(str, problems[:NAMED]))
    more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return InputError([Problem("model", "", f"{name!r} is damaged: {faults}{more}")])
