"""What a policy is declared with, in one object; and the settings that several policies share. No torch.

A family lists the policies that it accepts (`Family.policies`): by them rows are read, policies made, docs checked.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowcache.cache.fixed_steps import TARGETS
from flowcache.families.setting import Choice, Group, Number, Preset, Setting, Switch
from flowcache.records import ModelSpec

if TYPE_CHECKING:
    from flowcache.cache.fixed_steps import FixedSteps
    from flowcache.cache.step_cache import CacheOf
    from flowcache.cache.step_rule import Rule

WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
UNITS = ("token", "frame", "chunk")
WEIGHTINGS = ("even", "hard_code", "exponential", "polynomial", "upper_convex_polynomial", "gaussian")
# kv.keep -> the settings that it needs, and those that it may have.
KEEP = {
    "all": ((), ()),
    "recent": (("chunks",), ()),
    "sink": (("first", "chunks"), ()),
    "compressed": (("chunks",), ("by", "mix", "queries", "weighting", "power")),
}


def _kept(kv: Mapping[str, Any]) -> dict[str, Any]:
    """Chunks' worth of clean tokens, and how they are chosen."""
    from flowcache.cache.kv_select import Compression, Sink

    keep = kv.get("keep", "all")
    if keep == "all":
        return {}
    if keep == "recent":
        return {"clean": kv["chunks"]}
    if keep == "sink":
        return {"clean": kv["first"] + kv["chunks"], "compression": Sink(kv["first"], kv["chunks"])}
    said = {key: value for key, value in kv.items() if key not in ("keep", "chunks")}
    return {"clean": kv["chunks"], "compression": Compression(**said)}


KV_SETTINGS: Mapping[str, Setting] = {
    "keep": Choice(tuple(KEEP)),
    "first": Number(1, 1000, whole=True, unit="of chunks"),
    "chunks": Number(1, 1000, whole=True, unit="of chunks"),
    "by": Choice(UNITS),
    "mix": Number(0, 1),
    "queries": Choice(UNITS),
    "weighting": Choice(WEIGHTINGS),
    "power": Number(0, 100, above=True),
}
KV = Group(
    KV_SETTINGS,
    "an object with keep ('all', 'recent', 'sink' or 'compressed') and what goes with it",
    ("keep",),
    means=_kept,
)
# Those that several policies have, and may be given by these names.
SETTINGS: Mapping[str, Setting] = {
    "preset": Preset(),
    "threshold": Number(0, 100),
    "ret_steps": Number(0, 1000, whole=True, also="warmup_steps"),
    "reuse": Switch(),
    "budget": Number(0, 1, above=True),
    "quality_floor": Number(0, 100, above=True),
    "target": Choice(TARGETS),
    "refresh": Switch(means=lambda on: {"kv_update": "refresh" if on else "stale"}),
    "renoise": Switch(means=lambda on: {"renoise": on}),
    "velocity": Switch(),
    "last_step": Switch(),
    "near_clean": Switch(means=lambda on: {"near_clean_guidance": on}),
    "kv": KV,
}

# Settings that go together.
REUSE = ("preset", "threshold", "ret_steps")
BY_CHANGE = ("reuse", "velocity", "last_step")
HISTORY = ("refresh", "renoise", "kv")

Given = Mapping[str, Any]  # a row's settings, and the defaults of those that it does not give
Fault = tuple[tuple[str, ...], str]  # (where, message), such as (("kv", "chunks"), "is missing; ...")


@dataclass(frozen=True)
class PolicyDeclaration:
    """A policy that rows may name.

    settings: what goes with it, in the order of messages; the shared ones by `shared`. "preset" is one of the
    checkpoint's; where "reuse" is false every step is computed.
    fields: of `cache.policy.Policy`, where a row says nothing else.
    reuse: (given, spec) -> when steps are reused and what takes their place; None: none is. It may raise ValueError,
    and what it needs of torch it imports itself.
    reuses: whether it does so where a row names no setting of REUSE.
    steps: (given, spec) -> the fixed schedule of a row that says "budget", which then reuses nothing; None: none.
    """

    name: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    reuse: "Callable[[Given, ModelSpec], tuple[Rule, CacheOf]] | None" = None
    reuses: bool = True
    steps: "Callable[[Given, ModelSpec], FixedSteps] | None" = None

    def wants_reuse(self, given: Given) -> bool:
        """Whether a row's policy with these settings reuses steps."""
        if "budget" in given:
            return False
        return bool(given.get("reuse", self.reuses or any(key in given for key in REUSE)))


def unsound(policies: Sequence[PolicyDeclaration]) -> str:
    """What is wrong with declarations, which rows are read by; "" where nothing is."""
    faults = (f"policy {policy.name!r}: {fault}" for policy in policies if (fault := _unsound(policy)))
    return next(faults, "")


def _unsound(policy: PolicyDeclaration) -> str:
    if not isinstance(policy.name, str) or not WORD.fullmatch(policy.name):
        return "its name is none; accepted: letters, digits, '.', '_' and '-'"
    if other := next((key for key in policy.settings if not isinstance(key, str) or not WORD.fullmatch(key)), None):
        return f"{other!r} is no name of a setting; accepted: letters, digits, '.', '_' and '-'"
    return _ambiguous(policy.settings, {"name"}) or _faulty(policy.settings)


def _ambiguous(settings: Mapping[str, Setting], taken: set[str]) -> str:
    names = [*taken, *settings, *(each.also for each in settings.values() if getattr(each, "also", None))]
    twice = next((name for name in names if names.count(name) > 1), None)
    return f"{twice!r} means two things" if twice else ""


def _faulty(settings: Mapping[str, Setting]) -> str:
    """Settings that fail when they are asked, whatever rows may say, or that do not take their own default."""
    for key, setting in settings.items():
        if not isinstance(setting, Setting):
            return f"setting {key!r} is no Setting but {setting!r}"
        try:
            str.strip(setting.words)
            for value in (None, True, 0, 1.5, "x", [0], {"x": 0}):
                setting.takes(setting.read(value))
            if setting.default is not None and not setting.takes(setting.default):
                return f"the default {setting.default!r} of {key!r} is not accepted; accepted: {setting.words}"
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            return f"setting {key!r} can't be asked what it accepts: {error}"
        inside = setting.settings if isinstance(setting, Group) else {}
        if fault := _ambiguous(inside, set()) or _faulty(inside):
            return f"within {key!r}: {fault}"
    return ""


def shared(*keys: str) -> dict[str, Setting]:
    """Settings of several policies, by their names."""
    return {key: SETTINGS[key] for key in keys}


def by_name(policies: Sequence[PolicyDeclaration]) -> dict[str, PolicyDeclaration]:
    return {policy.name: policy for policy in policies}


def named(settings: Mapping[str, Any], known: Mapping[str, Setting] = SETTINGS) -> dict[str, Any]:
    """The same under the names that manifests and stores have: `ret_steps`, also where it says `warmup_steps`."""
    also = {setting.also: key for key, setting in known.items() if setting.also}
    return {also.get(key, key): value for key, value in settings.items()}


def strangers(policy: Mapping[str, Any], family: str, policies: Sequence[PolicyDeclaration]) -> list[Fault]:
    """A policy that the family does not accept, or settings that do not go with it."""
    name, declared = policy.get("name", "off"), by_name(policies)
    if name not in declared:
        return [(("name",), f"got {name!r}; accepted for models of family {family}: {', '.join(declared)}")]
    known = declared[name].settings
    accepted = f"accepted: {', '.join(known) or 'nothing but name'}"
    others = sorted(policy.keys() - {"name", *known})
    return [((key,), f"does not go with name {name!r}; {accepted}") for key in others]


def misfits(policy: Mapping[str, Any], settings: Mapping[str, Setting]) -> list[Fault]:
    """Settings that do not go together, or that are missing; types and ranges are checked elsewhere."""
    faults: list[Fault] = []
    if policy.get("reuse") is False:
        faults += [((key,), "does not go with reuse false; accepted: none") for key in REUSE if key in policy]
    if "budget" in policy:
        others = [key for key in (*REUSE, *BY_CHANGE) if key in policy]
        faults += [((key,), "does not go with budget, by which all steps are known; accepted: none") for key in others]
    else:
        of_budgets = {"quality_floor": "is what a budget is raised by", "target": "is what a budget comes close to"}
        alone = [key for key in of_budgets if key in policy and settings.get(key) is SETTINGS[key]]
        faults += [((key,), f"{of_budgets[key]}; accepted: with budget") for key in alone]
    kv = policy.get("kv", {}) if settings.get("kv") is KV else {}
    if kv:
        faults += [(("kv", *where), message) for where, message in _kv_misfits(kv)]
    if settings.get("renoise") is SETTINGS["renoise"] and policy.get("renoise") and kv.get("keep", "all") != "all":
        why = "a prefix that is forwarded with fresh noise at every row can't be cut down"
        faults.append((("renoise",), f"does not go with kv.keep {kv['keep']!r}: {why}; accepted: false"))
    return faults


def _kv_misfits(kv: Mapping[str, Any]) -> list[Fault]:
    keep = kv.get("keep")
    if keep not in KEEP:
        return [(("keep",), f"got {keep!r}; accepted: {', '.join(map(repr, KEEP))}")]
    needed, allowed = KEEP[keep]
    missing = [((key,), f"is missing; keep {keep!r} needs {' and '.join(needed)}") for key in needed if key not in kv]
    accepted = f"accepted: {', '.join((*needed, *allowed)) or 'nothing but keep'}"
    unknown = sorted(kv.keys() - {"keep", *needed, *allowed})
    if "weighting" in kv and kv.get("by", "token") != "token":
        missing.append((("weighting",), f"does not go with by {kv['by']!r}: only single tokens are weighted by age"))
    return missing + [((key,), f"does not go with keep {keep!r}; {accepted}") for key in unknown]
