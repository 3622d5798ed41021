"""What was calibrated on a checkpoint (`calibration.json` beside its parts), read and written. No torch."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowcache.cache.fixed_steps import Calibration, Conditions
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


def write(folder: Path, digest: str, calibrations: Sequence[Calibration]) -> None:
    presets = [asdict(each) for each in calibrations]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"checkpoint": digest, "presets": presets}, indent=1) + "\n")


def _calibration(path: Path, place: int, raw: Any) -> Calibration:
    """InputError."""
    try:
        said = raw["conditions"]
        conditions = Conditions(**said)
        whole = all(type(said[key]) is int and said[key] >= 0 for key in WHOLE)
        computed, tables = tuple(raw["computed"]), [_table(raw[key]) for key in ("first", "later")]
        sound = (
            whole and number(conditions.shift) and number(conditions.guidance) and number(raw["budget"])
            and all(type(step) is int for step in computed)
            and computed[:1] == (0,) and list(computed) == sorted({*computed}) and computed[-1] < conditions.steps
            and all(len(table) == len(computed) for table in tables)
            and all(number(value) for table in tables for own in table for value in own)
        )  # fmt: skip
        if sound:
            return Calibration(float(raw["budget"]), conditions, computed, *tables)
    except (KeyError, TypeError):
        pass
    raise InputError([Problem(str(path), f"presets[{place}]", f"is no preset; accepted: {ACCEPTED}")])


def _table(raw: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, raw))
