"""Whether a row is of a size and form that its fields can be looked at one by one."""

from collections.abc import Mapping
from typing import Any

from flowcache.inputs.schema import Row
from flowcache.inputs.written import UNWRITABLE

ENTRIES, DEPTH = 10_000, 20  # of all lists and objects in a row together; of one in another
KNOWN = frozenset(Row.model_fields)


def misshapen(row: Mapping[Any, Any]) -> str | None:
    """What is wrong with its objects and lists, and the names in them."""
    left = [(row, 1)]
    entries = 0
    while left:
        group, depth = left.pop()
        entries += len(group)
        if entries > ENTRIES:
            return f"has more than {ENTRIES:,} entries in all its lists and objects together"
        if depth > DEPTH:
            return f"has objects or lists in one another more than {DEPTH} deep"
        if isinstance(group, Mapping):
            for name in group:
                if name not in KNOWN and (fault := _unusable(name)):
                    return fault
            group = group.values()
        left += [(value, depth + 1) for value in group if isinstance(value, dict | list | tuple)]
    return None


def _unusable(name: Any) -> str | None:
    if not isinstance(name, str):
        return f"has a name that is no text ({str(name)[:40]!r})"
    found = UNWRITABLE.search(name)
    return f"has a name that holds U+{ord(found[0]):04X} ({name[:40]!r})" if found else None


def without(fields: Mapping[str, Any], bad: set[tuple[int | str, ...]]) -> dict[str, Any]:
    """The row without its faulty fields; shots keep their places."""
    kept = {name: value for name, value in fields.items() if isinstance(name, str) and (name,) not in bad}
    if isinstance(kept.get("shots"), list):
        shots = [shot if isinstance(shot, dict) else {} for shot in kept["shots"]]
        kept["shots"] = [
            {name: value for name, value in shot.items() if ("shots", i, name) not in bad}
            for i, shot in enumerate(shots)
        ]
    return kept
