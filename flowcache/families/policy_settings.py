"""What a policy may be told, declared once: by it rows are read, policies made, docs checked. No torch.

Which of it goes with which policy each family declares (`Family.policies`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Number:
    """low: of the range, itself not accepted where `above`. unit: "of chunks". also: another name that is accepted."""

    low: float
    high: float
    whole: bool = False
    above: bool = False
    unit: str = ""
    also: str | None = None

    @property
    def words(self) -> str:
        kind = f"a {'whole ' * self.whole}number{self.unit and f' {self.unit}'}"
        if self.above:
            return f"{kind} above {self.low:,}, at most {self.high:,}"
        return f"{kind} from {self.low:,} to {self.high:,}"

    def takes(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high and not (self.above and value == self.low)


@dataclass(frozen=True)
class Choice:
    values: tuple[str, ...]

    @property
    def words(self) -> str:
        *others, last = map(repr, self.values)
        return f"{', '.join(others)} or {last}"

    def takes(self, value: Any) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Switch:
    words: str = "true or false"

    def takes(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class Preset:
    """One of the model's (`ModelSpec.reuse`); most have these two."""

    words: str = "'slow' or 'fast'"

    def takes(self, value: Any) -> bool:
        return isinstance(value, str)


Setting = Number | Choice | Switch | Preset

NAMES = ("off", "dense", "paper", "teacache", "flowcache")  # of policies
PLAIN = ("off",)  # those without settings, whatever the family
UNITS = ("token", "frame", "chunk")
WEIGHTINGS = ("even", "hard_code", "exponential", "polynomial", "upper_convex_polynomial", "gaussian")
# kv.keep -> the settings that it needs, and those that it may have.
KEEP = {
    "all": ((), ()),
    "recent": (("chunks",), ()),
    "sink": (("first", "chunks"), ()),
    "compressed": (("chunks",), ("by", "mix", "queries", "weighting", "power")),
}
SETTINGS: Mapping[str, Setting] = {
    "preset": Preset(),
    "threshold": Number(0, 100),
    "ret_steps": Number(0, 1000, whole=True, also="warmup_steps"),
    "reuse": Switch(),
    "refresh": Switch(),
    "renoise": Switch(),
    "velocity": Switch(),
    "last_step": Switch(),
    "near_clean": Switch(),
}
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
KEYS = ("name", *SETTINGS, "kv")
ALSO = {setting.also: key for key, setting in SETTINGS.items() if isinstance(setting, Number) and setting.also}

# Settings that go together in what families declare.
REUSE = ("preset", "threshold", "ret_steps")
HISTORY = ("refresh", "renoise", "kv")

Fault = tuple[tuple[str, ...], str]  # (where, message), such as (("kv", "chunks"), "is missing; ...")


@dataclass(frozen=True)
class PolicyKeys:
    """What a family accepts under one policy's name, and what it means there.

    keys: settings that go with it. fields: of `cache.policy.Policy`, where a row says nothing else. reuses: whether
    it does where a row names no setting of reuse.
    """

    keys: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    reuses: bool = True

    def wants_reuse(self, given: Mapping[str, Any]) -> bool:
        """Whether a row's policy, with these settings, reuses."""
        asked = self.reuses or any(key in given for key in REUSE)
        return "preset" in self.keys and bool(given.get("reuse", asked))


def named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same under the names that manifests and stores have: `ret_steps`, also where it says `warmup_steps`."""
    return {ALSO.get(key, key): value for key, value in settings.items()}


def misfits(policy: Mapping[str, Any], family: str, policies: Mapping[str, PolicyKeys]) -> list[Fault]:
    """Settings that do not go together, or that are missing; types and ranges are checked elsewhere."""
    name = policy.get("name", "off")
    if name not in policies:
        return [(("name",), f"got {name!r}; accepted for models of family {family}: {', '.join(policies)}")]
    known = policies[name].keys
    accepted = f"accepted: {', '.join(known) or 'nothing but name'}"
    faults: list[Fault] = [
        ((key,), f"does not go with name {name!r}; {accepted}") for key in sorted(policy.keys() - {"name", *known})
    ]
    if faults:
        return faults
    if policy.get("reuse") is False:
        faults += [((key,), "does not go with reuse false; accepted: none") for key in REUSE if key in policy]
    kv = policy.get("kv", {})
    if kv:
        faults += [(("kv", *where), message) for where, message in _kv_misfits(kv)]
    if policy.get("renoise") and kv.get("keep", "all") != "all":
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
