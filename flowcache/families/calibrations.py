"""What was calibrated on a checkpoint, read and written: `calibration.json` beside its parts, or in its own folder.

No torch.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowcache.cache.fixed_steps import SOLVERS, TARGETS, Calibration, Conditions, FewerSteps, Preset, Seen
from flowcache.errors import InputError, Problem
from flowcache.families.spec_file import number
from flowcache.models.json_files import read_object
from flowcache.models.whole_files import whole

FILE = "calibration.json"
ACCEPTED = "what `families.calibrations.write` writes"


def read(folder: Path, digest: str) -> tuple[Preset, ...]:
    """digest: of the checkpoint without the file. InputError for a damaged one, and for another checkpoint's."""
    path = folder / FILE
    raw = read_object(path)
    if raw.get("checkpoint") != digest:
        raise InputError([Problem(str(path), "checkpoint", f"is another's; accepted: {digest}, or no such file")])
    presets = raw.get("presets")
    if not isinstance(presets, list):
        raise InputError([Problem(str(path), "presets", f"is no list; accepted: {ACCEPTED}")])
    return tuple(_preset(path, number, each) for number, each in enumerate(presets))


def model_of(folder: Path) -> str | None:
    """The checkpoint that a calibration in a folder of its own names, as it can be found from here. InputError."""
    path = folder / FILE
    named = read_object(path).get("model") if path.is_file() else None
    if named is not None and not (isinstance(named, str) and named):
        raise InputError([Problem(str(path), "model", f"is no name or path; accepted: {ACCEPTED}")])
    return named


def document(made: Preset) -> dict[str, Any]:
    """Without what is not known, and the target `off`, as versions wrote that did not ask."""
    usual = {"target": "off", "base": "own"}.items()
    return {key: value for key, value in asdict(made).items() if value not in (None, ()) and (key, value) not in usual}


def write(folder: Path, digest: str, calibrations: Sequence[Preset], model: str | None = None) -> None:
    """model: see `model_of`; None: the folder is the checkpoint's. FlowcacheError where it fails; what was there then
    stays."""
    presets, named = [document(each) for each in calibrations], {"model": model} if model else {}
    with whole(folder / FILE) as part:
        part.write_text(json.dumps({"checkpoint": digest, **named, "presets": presets}, indent=1) + "\n")


def _preset(path: Path, place: int, raw: Any) -> Preset:
    """InputError."""
    try:
        made = _fewer(raw) if "solver" in raw else _calibration(raw)
        if _holds(made.conditions) and number(made.budget) and 0 < made.budget <= 1 and all(_sound(made)):
            return made
    except (KeyError, TypeError, AttributeError):
        pass
    raise InputError([Problem(str(path), f"presets[{place}]", f"is no preset; accepted: {ACCEPTED}")])


def _fewer(raw: Any) -> FewerSteps:
    own = raw["steps"], raw["lag"], raw["solver"], raw.get("target", "off")
    return FewerSteps(raw["budget"], Conditions(**raw["conditions"]), *own)


def _calibration(raw: Any) -> Calibration:
    computed, first, later = tuple(raw["computed"]), _table(raw["first"]), _table(raw["later"])
    first_seen, later_seen = (tuple(Seen(**each) for each in raw.get(key, ())) for key in ("first_seen", "later_seen"))
    conditions, tables = Conditions(**raw["conditions"]), (first, later, first_seen, later_seen)
    more = tuple(raw.get("first_computed", ())), raw.get("base", "own")
    return Calibration(
        raw["budget"], conditions, computed, *tables, raw.get("predicted"), raw.get("target", "off"), *more
    )


def _holds(at: Conditions) -> bool:
    whole = all(type(value) is int and value >= 0 for value in (at.steps, at.lag, at.chunk))
    return whole and number(at.shift) and number(at.guidance)


def _sound(made: Preset) -> Iterator[bool]:
    steps = made.conditions.steps
    yield made.target in TARGETS
    if isinstance(made, FewerSteps):
        yield type(made.steps) is int and 1 <= made.steps <= steps and made.solver in SOLVERS
        yield type(made.lag) is int and 0 <= made.lag <= steps
        return
    yield made.base in SOLVERS
    for computed, table, shown in (
        (made.steps_of(0), made.first, made.first_seen),
        (made.computed, made.later, made.later_seen),
    ):
        yield all(type(step) is int for step in computed)
        yield computed[:1] == (0,) and [*computed] == sorted({*computed}) and computed[-1] < steps
        yield len(table) == len(computed) and len(shown) in (0, len(computed) - 1)
        yield all(number(value) for own in table for value in own)
    yield made.steps_of(0)[-1] <= made.conditions.lag + made.computed[-1]  # chunks finish in their order
    seen = (value for one in (*made.first_seen, *made.later_seen) for value in vars(one).values())
    yield all(number(value) and value >= 0 for value in seen)
    yield made.predicted is None or number(made.predicted)


def _table(raw: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, raw))
