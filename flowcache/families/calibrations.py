"""What was calibrated on a checkpoint (`calibration.json` beside its parts), read and written. No torch."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowcache.cache.fixed_steps import Calibration, Conditions, Seen
from flowcache.errors import InputError, Problem
from flowcache.families.spec_file import number
from flowcache.models.json_files import read_object

FILE = "calibration.json"
WHOLE = ("steps", "lag", "chunk")
ACCEPTED = "what `families.calibrations.write` writes"


def read(folder: Path, digest: str) -> tuple[Calibration, ...]:
    """digest: of the checkpoint without the file. InputError for a damaged one, and for another checkpoint's."""
    path = folder / FILE
    raw = read_object(path)
    if raw.get("checkpoint") != digest:
        raise InputError([Problem(str(path), "checkpoint", f"is another's; accepted: {digest}, or no such file")])
    presets = raw.get("presets")
    if not isinstance(presets, list):
        raise InputError([Problem(str(path), "presets", f"is no list; accepted: {ACCEPTED}")])
    return tuple(_calibration(path, number, each) for number, each in enumerate(presets))


def document(made: Calibration) -> dict[str, Any]:
    """Without what is not known, as versions wrote that did not ask."""
    return {key: value for key, value in asdict(made).items() if value not in (None, ())}


def write(folder: Path, digest: str, calibrations: Sequence[Calibration]) -> None:
    presets = [document(each) for each in calibrations]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"checkpoint": digest, "presets": presets}, indent=1) + "\n")


def _calibration(path: Path, place: int, raw: Any) -> Calibration:
    """InputError."""
    try:
        said = raw["conditions"]
        conditions = Conditions(**said)
        whole = all(type(said[key]) is int and said[key] >= 0 for key in WHOLE)
        computed, first, later = tuple(raw["computed"]), _table(raw["first"]), _table(raw["later"])
        first_seen, later_seen = (
            tuple(Seen(**each) for each in raw.get(key, ())) for key in ("first_seen", "later_seen")
        )
        predicted = raw.get("predicted")
        sound = (
            whole and number(conditions.shift) and number(conditions.guidance) and number(raw["budget"])
            and all(type(step) is int for step in computed)
            and computed[:1] == (0,) and list(computed) == sorted({*computed}) and computed[-1] < conditions.steps
            and len(first) == len(later) == len(computed)
            and all(number(value) for own in (*first, *later) for value in own)
            and all(len(own) in (0, len(computed) - 1) for own in (first_seen, later_seen))
            and all(number(own) and own >= 0 for each in (*first_seen, *later_seen) for own in vars(each).values())
            and (predicted is None or number(predicted))
        )  # fmt: skip
        if sound:
            tables = first, later, first_seen, later_seen
            return Calibration(float(raw["budget"]), conditions, computed, *tables, predicted)
    except (KeyError, TypeError, AttributeError):
        pass
    raise InputError([Problem(str(path), f"presets[{place}]", f"is no preset; accepted: {ACCEPTED}")])


def _table(raw: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, raw))
