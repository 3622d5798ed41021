"""From what a row says of its policy to what the denoise loop follows."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from flowcache.cache.kv_select import Compression, Sink
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.families.policy_settings import KEYS, KV_SETTINGS, NAMES, SETTINGS, PolicyKeys, Setting, misfits, named
from flowcache.records import ModelSpec


def resolve(policy: Mapping[str, Any], spec: ModelSpec, policies: Mapping[str, PolicyKeys]) -> Policy:
    """From a row's policy (docs/manifest.md), as the model's family declares it; presets are the model's.

    ValueError names what would be accepted.
    """
    given = {"name": "off", **named(policy)}
    name, kv = given["name"], given.get("kv") or {"keep": "all"}
    if name not in NAMES:
        raise ValueError(f"unknown policy {name!r}; accepted: {', '.join(policies)}")
    if unknown := sorted(set(given) - set(KEYS)):
        raise ValueError(f"unknown policy settings {', '.join(unknown)}; accepted: {', '.join(KEYS)}")
    if faults := misfits(given, spec.family, policies):
        raise ValueError("; ".join(f"policy {'.'.join(where)} {message}" for where, message in faults))
    if faults := [*_faults(given, SETTINGS), *_faults(kv, KV_SETTINGS, "kv.")]:
        raise ValueError("; ".join(f"policy {fault}" for fault in faults))
    declared = policies[name]
    clean, compression = _kept(kv)
    policy = Policy(name, clean=clean, compression=compression, **{**declared.fields, **_fields(given)})
    return replace(policy, reuse=_reuse(given, spec, policy.whole)) if declared.wants_reuse(given) else policy


def bare(policies: Mapping[str, PolicyKeys], *names: str) -> dict[str, Policy]:
    """Policies as they are without a setting, and with every step computed."""
    return {name: Policy(name, **policies[name].fields) for name in names}


def _faults(given: Mapping[str, Any], known: Mapping[str, Setting], prefix: str = "") -> Iterator[str]:
    for key, setting in known.items():
        if key in given and not setting.takes(given[key]):
            yield f"{prefix}{key} must be {setting.words}, not {given[key]!r}"


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Policy` that a row's settings say outright."""
    made = {
        "refresh": lambda on: {"kv_update": "refresh" if on else "stale"},
        "renoise": lambda on: {"renoise": on},
        "velocity": lambda on: {"repeats": "velocity" if on else "increment"},
        "last_step": lambda on: {"last_step": on},
        "near_clean": lambda on: {"near_clean_guidance": on},
    }
    return {field: value for key, of in made.items() if key in given for field, value in of(given[key]).items()}


def _reuse(policy: Mapping[str, Any], spec: ModelSpec, whole: bool) -> Reuse:
    """whole: the rule is TeaCache's own, which may look at another signal than FlowCache's."""
    preset = policy.get("preset", "slow")
    if preset not in spec.reuse:
        accepted = ", ".join(spec.reuse) or "none, it comes without presets"
        raise ValueError(f"unknown preset {preset!r} of policy {policy['name']}; {spec.name} accepts: {accepted}")
    said = {**named(spec.reuse[preset]), **policy}
    if faults := list(_faults(said, SETTINGS)):
        raise ValueError(f"preset {preset!r} of {spec.name}: {'; '.join(faults)}")
    signal = said.get("signal", "blocks") if whole else "blocks"
    return Reuse(said["threshold"], said["ret_steps"], tuple(said["coefficients"]), signal)


def _kept(kv: Mapping[str, Any]) -> tuple[int | None, Compression | Sink | None]:
    """Chunks' worth of clean tokens, and how they are chosen."""
    if kv["keep"] == "all":
        return None, None
    if kv["keep"] == "recent":
        return kv["chunks"], None
    if kv["keep"] == "sink":
        return kv["first"] + kv["chunks"], Sink(kv["first"], kv["chunks"])
    return kv["chunks"], Compression(**{key: value for key, value in kv.items() if key not in ("keep", "chunks")})
