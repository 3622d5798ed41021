"""The families that there are: those of this package, and what installed packages add. No torch.

A package adds one by an entry point of the group `flowcache.families`: its name, and `module:object` of a `Family`.
A checkpoint names its family alone, and never code to import.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from flowcache.errors import InputError, Problem
from flowcache.families.base import Config, Family
from flowcache.families.layouts import Layout, check_unmixed
from flowcache.families.magi.family import FAMILY as MAGI
from flowcache.families.policy_settings import PolicyDeclaration
from flowcache.families.skyreels.family import FAMILY as SKYREELS

GROUP = "flowcache.families"
BUILT_IN: Mapping[str, Family] = {family.name: family for family in (SKYREELS, MAGI)}


def names() -> list[str]:
    return [*BUILT_IN, *sorted(added())]


def accepted() -> str:
    """What a message says of other names."""
    return f"accepted: {', '.join(names())}, or that of an installed package (docs/families.md)"


def is_known(name: str) -> bool:
    return name in BUILT_IN or name in added()


def family(name: str) -> Family:
    """InputError where there is none of that name, or where it can't be imported."""
    if not is_known(name):
        raise InputError([Problem("family", "", f"got {name!r}; {accepted()}")])
    return BUILT_IN[name] if name in BUILT_IN else _loaded(added()[name])


def family_of(config: Config) -> Family:
    return family(config.family)


def families() -> Iterator[Family]:
    """Those of this package first. InputError once one comes that can't be imported."""
    return map(family, names())


def policies() -> Sequence[PolicyDeclaration]:
    """What all families accept, one after the other; one that can't be imported is told of where a row needs it."""
    try:
        points = tuple(added().values())
    except InputError:
        points = ()
    return _policies(points)


@cache
def _policies(points: tuple[EntryPoint, ...]) -> Sequence[PolicyDeclaration]:
    found = [*BUILT_IN.values()]
    for point in points:
        with suppress(InputError):
            found.append(_loaded(point))
    return [policy for each in found for policy in each.policies]


def recognise(path: Path) -> tuple[Family, Layout] | None:
    """What a checkpoint without flowcache.json is, by what lies at a folder's top, or by a config file; None: nothing.

    A file that several families take for theirs belongs to the last of them, as they look closer. InputError where two
    layouts are mixed, and for a faulty config that says where the parts lie.
    """
    found: dict[str, tuple[Family, list[str]]] = {}
    for each in families():
        marks = each.marks(path)
        claimed = {file for files in marks.values() for file in files}
        for layout, (other, files) in found.items():
            found[layout] = other, [file for file in files if file not in claimed]
        found |= {layout: (each, list(files)) for layout, files in marks.items() if files}
    check_unmixed(path, {layout: files for layout, (_, files) in found.items()})
    owner = next((each for each, files in found.values() if files), None)
    return owner and (owner, owner.layout(path))


@cache
def added() -> Mapping[str, EntryPoint]:
    """By name. InputError where two packages, or a package and this one, offer the same."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in BUILT_IN or point.name in found:
            first = _source(found[point.name]) if point.name in found else "flowcache itself"
            message = f"{point.name!r} is offered twice, by {first} and by {_source(point)}; uninstall one"
            raise InputError([Problem("family", "", message)])
        found[point.name] = point
    return found


@cache
def _loaded(point: EntryPoint) -> Family:
    try:
        made = point.load()
    except Exception as error:  # whatever a package does while it is imported
        message = f"{point.name!r} of {_source(point)} can't be imported from {point.value}: {error}"
        raise InputError([Problem("family", "", message)]) from error
    if not isinstance(made, Family) or made.name != point.name:
        message = f"{point.name!r} of {_source(point)}: {point.value} is no family of that name"
        raise InputError([Problem("family", "", message)])
    listed = getattr(made, "policies", ())
    named = {policy.name for policy in listed if isinstance(policy, PolicyDeclaration)}
    if not named or len(named) < len(listed):
        message = f"{point.name!r} of {_source(point)}: its policies are no PolicyDeclarations, each of another name"
        raise InputError([Problem("family", "", message)])
    return made


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
