"""From what a row says of its policy to what the denoise loop follows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flowcache.cache.fixed_steps import FixedSteps
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.families.policy_settings import (
    SETTINGS,
    Given,
    PolicyDeclaration,
    by_name,
    misfits,
    named,
    shared,
    strangers,
)
from flowcache.families.setting import Setting, refused
from flowcache.records import ModelSpec


def resolve(policy: Mapping[str, Any], spec: ModelSpec, policies: Sequence[PolicyDeclaration]) -> Policy:
    """From a row's policy (docs/manifest.md), as the model's family declares it; presets are the model's.

    ValueError names what would be accepted.
    """
    name, declared = policy.get("name", "off"), by_name(policies)
    if name not in declared:
        raise ValueError(f"unknown policy {name!r}; accepted: {', '.join(declared)}")
    own = declared[name]
    given = {"name": name, **named(policy, own.settings)}
    everywhere = {"name": None, **SETTINGS} | {key: None for each in policies for key in each.settings}
    if unknown := sorted(given.keys() - everywhere):
        raise ValueError(f"unknown policy settings {', '.join(unknown)}; accepted: {', '.join(everywhere)}")
    if faults := strangers(given, spec.family, policies) or misfits(given, own.settings):
        raise ValueError("; ".join(f"policy {'.'.join(where)} {message}" for where, message in faults))
    if faults := _faults(given, own.settings):
        raise ValueError("; ".join(f"policy {fault}" for fault in faults))
    defaults = {key: setting.default for key, setting in own.settings.items() if setting.default is not None}
    made = _made(own, defaults | given, spec)
    return replace(made, off=bare(policies, "off")["off"]) if made.steps and "off" in declared else made


def _made(own: PolicyDeclaration, given: Given, spec: ModelSpec) -> Policy:
    fields = dict(own.fields)
    for key, setting in own.settings.items():
        if setting.means and key in given:
            fields |= setting.means(given[key])
    if own.reuse and own.wants_reuse(given):
        fields["reuse"], fields["cache"] = own.reuse(given, spec)
    if own.steps and "budget" in given:
        fields["steps"] = own.steps(given, spec)
    return Policy(own.name, **fields)


def bare(policies: Sequence[PolicyDeclaration], *names: str) -> dict[str, Policy]:
    """Policies as they are without a setting, and with every step computed."""
    declared = by_name(policies)
    return {name: Policy(name, **declared[name].fields) for name in names}


def budgeted(given: Given, spec: ModelSpec) -> FixedSteps:
    """The fixed schedule of a row's budget, with what was calibrated on the checkpoint."""
    return FixedSteps(given["budget"], spec.calibrations, given.get("quality_floor"), given.get("target"))


def by_preset(given: Given, spec: ModelSpec, kind: type[Reuse] = Reuse, last_step: bool = True) -> Reuse:
    """The rule of the model's preset that a row names, with what else the row says. ValueError."""
    preset = given.get("preset", "slow")
    if preset not in spec.reuse:
        accepted = ", ".join(spec.reuse) or "none, it comes without presets"
        raise ValueError(f"unknown preset {preset!r} of policy {given['name']}; {spec.name} accepts: {accepted}")
    said = {**named(spec.reuse[preset]), **given}
    if faults := _faults(said, shared("threshold", "ret_steps")):
        raise ValueError(f"preset {preset!r} of {spec.name}: {'; '.join(faults)}")
    return kind(said["threshold"], said["ret_steps"], tuple(said["coefficients"]), last_step)


def _faults(given: Given, settings: Mapping[str, Setting]) -> list[str]:
    return [f"{'.'.join(where)} must be {words}, not {value!r}" for where, words, value in refused(given, settings)]
