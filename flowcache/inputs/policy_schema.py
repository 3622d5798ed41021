"""What people write of a policy, checked by what all families declare (`families.policy_settings`).

Of which family the row's model is, is not known yet: `row.policy` asks that one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from flowcache.families.known import policies
from flowcache.families.policy_settings import SETTINGS, Fault, PolicyDeclaration
from flowcache.families.setting import Group, Preset, Setting, one_of
from flowcache.inputs.written import Written, shown, suggestion

Alternatives = Mapping[str, Sequence[Setting]]  # by key: what one family or another declares
COUNTS = ("", "this one", "these two", "these three", "these four", "these five", "these six", "these seven")


class Policy(Written):
    """Its settings beside the name are further fields; which of them go with which name each family declares.

    `off` is the unaccelerated model, causal by chunks, `dense` the same with attention both ways, as official by
    default, and with the official TeaCache where a preset is named; `paper` is FlowCache as published, `flowcache` is
    ours, `teacache` the baseline that decides for the whole window at once.
    """

    model_config = ConfigDict(extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """Also of the short form "name:preset". A fault's message says all."""
        if isinstance(value, Policy):
            return value
        written = _expanded(value) if isinstance(value, str) else value
        if not isinstance(written, Mapping):
            raise _told(value, [((), f"got {shown(value)}; accepted: {sentence()}")])
        read, faults = _checked(written)
        if faults:
            raise _told(value, faults)
        return read


def sentence() -> str:
    """The policies that there are, those of most families first: without settings, then those with presets."""
    declared = policies()
    names = [name for name, _ in Counter(policy.name for policy in declared).most_common()]
    short = {policy.name for policy in declared if _has_presets(policy.settings)}
    plain, brief = [name for name in names if name not in short], [name for name in names if name in short]
    also = ""
    if brief:
        count = COUNTS[len(brief)] if len(brief) < len(COUNTS) else f"the last {len(brief)}"
        also = f", {count} also as '{brief[0]}:slow' or '{brief[0]}:fast'"
    return f"{one_of(map(repr, plain + brief))}{also}, or an object with name and settings (docs/manifest.md)"


def checked(given: Mapping[str, Any], known: Mapping[str, Setting]) -> tuple[dict[str, Any], list[Fault]]:
    """Settings as one family declares them: as a request keeps them, in its order, and the faults of others."""
    return _values(given, {key: [setting] for key, setting in known.items()})


def _expanded(value: str) -> Mapping[str, Any] | str:
    """The object that a short form ("paper:fast", "flowcache:0.3") stands for; what is none stays."""
    name, colon, preset = value.partition(":")
    known = [policy for policy in policies() if policy.name == name]
    if not known or (colon and not (preset and any(_has_presets(policy.settings) for policy in known))):
        return value
    if not colon:
        return {"name": name}
    share = _number(preset) if any("budget" in policy.settings for policy in known) else None
    return {"name": name, "preset": preset} if share is None else {"name": name, "budget": share}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _has_presets(settings: Mapping[str, Setting]) -> bool:
    return isinstance(settings.get("preset"), Preset)


def _told(value: Any, faults: Sequence[Fault]) -> ValidationError:
    errors = [
        InitErrorDetails(type=PydanticCustomError("told", "{message}", {"message": message}), loc=where, input=value)
        for where, message in faults
    ]
    return ValidationError.from_exception_data("Policy", errors)


def _checked(written: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The policy by the names that requests keep, and every fault that can be told without a model."""
    declared, name, faults = policies(), written.get("name"), []
    names = list(dict.fromkeys(policy.name for policy in declared))
    if name not in names:
        given = f"got {shown(name)}" if "name" in written else "is missing"
        faults.append((("name",), f"{given}; accepted: {one_of(map(repr, names))}"))
    same = [policy for policy in declared if policy.name == name]
    meant = _meanings(same)
    unclear = {word for word, keys in meant.items() if len(keys) > 1}  # the model's family knows
    known = _elsewhere(declared, meant) | _alternatives(same)
    read, others = _values({key: written[key] for key in written if key not in ("name", *unclear)}, known, ("name",))
    left = {key: written[key] for key in written if key in unclear and written[key] is not None}
    return {"name": name, **read, **left}, faults + others


def _meanings(same: Iterable[PolicyDeclaration]) -> dict[Any, set[str]]:
    """By what rows may write of one policy: the settings that families mean by it."""
    found: dict[Any, set[str]] = defaultdict(set)
    for policy in same:
        for key, setting in policy.settings.items():
            for word in filter(None, (key, setting.also)):
                found[word].add(key)
    return found


def _elsewhere(declared: Iterable[PolicyDeclaration], meant: Mapping[Any, set[str]]) -> dict[str, list[Setting]]:
    """Settings of all policies, but for the words that mean something else in this one."""
    every = {key: [setting] for key, setting in SETTINGS.items()} | _alternatives(declared)
    own = {key for keys in meant.values() for key in keys}
    return {
        key: [replace(each, also=None) if each.also in meant else each for each in settings]
        for key, settings in every.items()
        if key in own or key not in meant
    }


def _alternatives(declared: Iterable[PolicyDeclaration]) -> dict[str, list[Setting]]:
    """Settings by key, each once."""
    found: dict[str, list[Setting]] = {}
    for policy in declared:
        for key, setting in policy.settings.items():
            if setting not in found.setdefault(key, []):
                found[key].append(setting)
    return found


def _values(
    written: Mapping[Any, Any], known: Alternatives, others: Sequence[str] = (), needed: Sequence[str] = ()
) -> tuple[dict[str, Any], list[Fault]]:
    """Null is absent, but not where it is needed. others: keys that there may be too."""
    read, faults, left = {}, [], dict(written)
    also = {setting.also: key for key, settings in known.items() for setting in settings if setting.also}
    for key, settings in known.items():
        name = next((name for name in (key, *also) if name in left and also.get(name, name) == key), key)
        if key in needed and name not in written:
            faults.append(((key,), f"is missing; accepted: {settings[0].words}"))
        value = left.pop(name, None)
        if value is not None or (key in needed and name in written):
            read[key], found = _value(value, settings)
            faults += [((name, *where), message) for where, message in found]
    return read, faults + [((key,), _unknown(key, also, [*others, *known])) for key in left]


def _value(value: Any, settings: Sequence[Setting]) -> tuple[Any, list[Fault]]:
    """As the setting reads it; of several the model's family will choose, and say what it accepts (`row.policy`)."""
    return _read(value, settings[0]) if len(settings) == 1 else (value, [])


def _read(value: Any, setting: Setting) -> tuple[Any, list[Fault]]:
    if isinstance(setting, Group) and isinstance(value, Mapping):
        return _values(value, {key: [each] for key, each in setting.settings.items()}, needed=setting.needed)
    read = setting.read(value)
    return read, [] if setting.takes(read) else [((), f"got {shown(value)}; accepted: {setting.words}")]


def _unknown(key: Any, also: Mapping[str, str], known: Iterable[str]) -> str:
    if key in also:
        return f"is given together with {also[key]}, which means the same; accepted: one of the two"
    return f"is no known field; {suggestion(str(key), known)}"
