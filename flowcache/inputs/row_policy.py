"""What a row says of its policy."""

from collections.abc import Mapping, Sequence
from typing import Any

from flowcache.families.known import family
from flowcache.families.policy_settings import SETTINGS, Fault, by_name, misfits, named, strangers
from flowcache.families.setting import Preset
from flowcache.inputs.policy_schema import checked
from flowcache.inputs.row import ReadRow
from flowcache.inputs.schema import Policy, shown
from flowcache.records import ModelSpec


def policy(row: ReadRow, spec: ModelSpec, default: Policy, solver: str | None) -> dict[str, Any]:
    """{"name": "off"} or "dense", or {"name": "paper", "preset": ..., and what overrides it}. solver: the row's, or the
    job's for it."""
    chosen = row.says.policy or default
    given = chosen.model_dump(exclude_none=True)
    if not row.good("policy"):
        return given
    policies = family(spec.family).policies
    declared = by_name(policies)
    settings = declared[chosen.name].settings if chosen.name in declared else {}
    if faults := strangers(named(given, settings), spec.family, policies):
        return _faulty(row, given, faults)
    read, faults = checked({key: value for key, value in given.items() if key != "name"}, settings)
    if faults := faults or misfits(read, settings):
        return _faulty(row, given, faults)
    given, preset = {key: given[key] for key in given if key in ("name", *read)} | read, settings.get("preset")
    if solver == "corrected" and "budget" in given and settings.get("target") is SETTINGS["target"]:
        given.setdefault("target", "converged")  # half of what brings a row close to `off` is the other solver's fault
    _warn_of_floor(row, given, spec)
    if not isinstance(preset, Preset) or not declared[chosen.name].wants_reuse(given):
        return given
    if not (presets := preset.of(spec)):
        plain = " or ".join(repr(name) for name, known in declared.items() if "preset" not in known.settings)
        row.fault(("policy",), f"got {chosen.name!r}, for which {spec.name} has no settings; accepted: {plain}")
        return given
    asked = given.get("preset") or ("slow" if "slow" in presets else next(iter(presets)))
    if asked not in presets:
        known = " or ".join(repr(name) for name in presets)
        row.fault(("policy", "preset"), f"got {shown(asked)}; accepted with {spec.name}: {known}")
    return given | {"preset": asked}


def _warn_of_floor(row: ReadRow, given: Mapping[str, Any], spec: ModelSpec) -> None:
    budget = given.get("budget", 0.0)
    judging = (each for each in spec.calibrations if each.judges and each.target == given.get("target", each.target))
    if "quality_floor" in given and not any(each.budget <= budget for each in judging):
        why = f"{spec.name} has no calibration up to budget {budget:g} that says what residuals it saw"
        row.warn(("policy", "quality_floor"), f"judges nothing: {why}")


def _faulty(row: ReadRow, given: dict[str, Any], faults: Sequence[Fault]) -> dict[str, Any]:
    for where, message in faults:
        row.fault(("policy", *where), message)
    return given
