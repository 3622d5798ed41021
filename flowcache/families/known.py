"""The families that there are: those of this package, and what installed packages add. No torch.

A package adds one by an entry point of the group `flowcache.families`: its name, and `module:object` of a `Family`.
A checkpoint names its family alone, and never code to import. What is wrong with one package is told where its family
is asked for, or might be meant, and concerns no other.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from flowcache.errors import InputError, Problem, problems_of
from flowcache.families.base import Config, Family
from flowcache.families.layouts import Layout, check_unmixed
from flowcache.families.magi.family import FAMILY as MAGI
from flowcache.families.policy_settings import PolicyDeclaration, unsound
from flowcache.families.skyreels.family import FAMILY as SKYREELS

GROUP = "flowcache.families"
BUILT_IN: Mapping[str, Family] = {family.name: family for family in (SKYREELS, MAGI)}
LOG = logging.getLogger(__name__)

T = TypeVar("T")


class PackageError(InputError):
    """A package that adds a family is at fault, whatever the checkpoint is."""

    def __init__(self, message: str):
        super().__init__([Problem("family", "", message)])


def accepted() -> str:
    """What a message says of other names."""
    names = ", ".join([*BUILT_IN, *sorted(set(added()) - set(BUILT_IN))])
    return f"accepted: {names}, or that of an installed package (docs/families.md){left_out()}"


def is_known(name: str) -> bool:
    return name in BUILT_IN or name in added()


def family(name: str) -> Family:
    """InputError where there is none of that name, PackageError where what adds it can't be used."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name not in added():
        raise InputError([Problem("family", "", f"got {name!r}; {accepted()}")])
    return _loaded(added()[name])


def family_of(config: Config) -> Family:
    return family(config.family)


def answers(ask: Callable[[Family], T]) -> Iterator[tuple[Family, T]]:
    """What each family answers, those of this package first. A package that fails is left out, with a warning."""
    yield from ((each, ask(each)) for each in BUILT_IN.values())
    for name in sorted(added()):
        try:
            yield _asked(name, ask)
        except PackageError as error:
            _warn(f"{error}; it is left out")


def left_out() -> str:
    """What is wrong with packages whose families can't be used, as the end of a message; "" where nothing is."""
    faults = [each.message for name in sorted(added()) for each in problems_of(partial(_usable, name))]
    return "".join(f"; left out: {fault}" for fault in faults)


def policies() -> Sequence[PolicyDeclaration]:
    """What all families accept, one after the other; a package at fault is told of where a row needs it."""
    return _policies(tuple(added().items()))


@cache
def _policies(offered: tuple[tuple[str, tuple[EntryPoint, ...]], ...]) -> Sequence[PolicyDeclaration]:
    found = [*BUILT_IN.values()]
    for name, _ in offered:
        with suppress(PackageError):
            found.append(_usable(name))
    return [policy for each in found for policy in each.policies]


def recognise(path: Path) -> tuple[Family, Layout] | None:
    """What a checkpoint without flowcache.json is, by what lies at a folder's top, or by a config file; None: nothing.

    A file that several families take for theirs belongs to the last of them, as they look closer. InputError where two
    layouts are mixed, and for a faulty config that says where the parts lie.
    """
    found: dict[str, tuple[Family, list[str]]] = {}
    for each, marks in answers(lambda each: {name: list(files) for name, files in each.marks(path).items()}):
        claimed = {file for files in marks.values() for file in files}
        for layout, (other, files) in found.items():
            found[layout] = other, [file for file in files if file not in claimed]
        found |= {layout: (each, files) for layout, files in marks.items() if files}
    check_unmixed(path, {layout: files for layout, (_, files) in found.items()})
    owner = next((each for each, files in found.values() if files), None)
    return owner and (owner, owner.layout(path))


@cache
def added() -> Mapping[str, tuple[EntryPoint, ...]]:
    """By name, all that packages offer as such: one, where they are sound."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=GROUP):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def _usable(name: str) -> Family:
    """A package's family. PackageError."""
    points = added()[name]
    if name in BUILT_IN:
        raise PackageError(_twice(name, "flowcache itself", _source(points[0])))
    return _loaded(points)


def _asked(name: str, ask: Callable[[Family], T]) -> tuple[Family, T]:
    """A package's family and what it answers. PackageError."""
    found = _usable(name)
    try:
        return found, ask(found)
    except Exception as error:  # whatever a package does
        raise PackageError(f"{name!r} of {_source(added()[name][0])} fails: {error!r}") from error


@cache
def _loaded(points: tuple[EntryPoint, ...]) -> Family:
    point = points[0]
    if len(points) > 1:
        raise PackageError(_twice(point.name, *map(_source, points[:2])))
    try:
        made = point.load()
    except (Exception, SystemExit) as error:  # whatever a package does while it is imported
        message = f"{point.name!r} of {_source(point)} can't be imported from {point.value}: {error}"
        raise PackageError(message) from error
    if not isinstance(made, Family) or made.name != point.name:
        raise PackageError(f"{point.name!r} of {_source(point)}: {point.value} is no family of that name")
    listed = getattr(made, "policies", ())
    named = {policy.name for policy in listed if isinstance(policy, PolicyDeclaration)}
    if not named or len(named) < len(listed):
        message = f"{point.name!r} of {_source(point)}: its policies are no PolicyDeclarations, each of another name"
        raise PackageError(message)
    if fault := unsound(listed):
        raise PackageError(f"{point.name!r} of {_source(point)}: {fault}")
    return made


def _twice(name: str, first: str, second: str) -> str:
    return f"{name!r} is offered twice, by {first} and by {second}; uninstall one"


@cache
def _warn(message: str) -> None:
    """Once in a process."""
    LOG.warning("warning: %s", message)


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
