"""The kinds of settings that a policy may have: which values rows may give, and how messages say so. No torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowcache.records import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Setting(ABC):
    """default: what the policy is told where a row says nothing; None: nothing. also: another name for it in rows.

    means: value -> the fields of `cache.policy.Policy` that it says; None: `PolicyDeclaration.reuse` reads it.
    """

    default: Any = None
    also: str | None = None
    means: Callable[[Any], Mapping[str, Any]] | None = None

    @property
    @abstractmethod
    def words(self) -> str:
        """What is accepted."""

    @abstractmethod
    def takes(self, value: Any) -> bool: ...

    def read(self, value: Any) -> Any:
        """The value in the form in which a request keeps it."""
        return value


@dataclass(frozen=True)
class Number(Setting):
    """low: of the range, itself not accepted where `above`. unit: "of chunks"."""

    low: float
    high: float
    whole: bool = False
    above: bool = False
    unit: str = ""

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

    def read(self, value: Any) -> Any:
        """64.0 is the whole number 64: spreadsheets and pandas write it so."""
        if self.whole:
            return int(value) if isinstance(value, float) and value.is_integer() else value
        return float(value) if self.takes(value) else value


@dataclass(frozen=True)
class Choice(Setting):
    values: tuple[str, ...]

    @property
    def words(self) -> str:
        return one_of(map(repr, self.values))

    def takes(self, value: Any) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Switch(Setting):
    @property
    def words(self) -> str:
        return "true or false"

    def takes(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class Preset(Setting):
    """One of the checkpoint's, by name; most have these two. of: all that it has."""

    of: Callable[[ModelSpec], Mapping[str, Any]] = lambda spec: spec.reuse

    @property
    def words(self) -> str:
        return "'slow' or 'fast'"

    def takes(self, value: Any) -> bool:
        return isinstance(value, str) and value.isprintable() and bool(value.strip()) and len(value) <= 100


@dataclass(frozen=True)
class Group(Setting):
    """An object with settings of its own. said: how messages describe it. needed: keys that it must have."""

    settings: Mapping[str, Setting]
    said: str
    needed: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return self.said

    def takes(self, value: Any) -> bool:
        return isinstance(value, Mapping)


def one_of(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def refused(given: Mapping[str, Any], settings: Mapping[str, Setting]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """(where, what is accepted, value) of each value that its setting does not take."""
    for key, setting in settings.items():
        if key not in given:
            continue
        if isinstance(setting, Group) and setting.takes(given[key]):
            inside = refused(given[key], setting.settings)
            yield from (((key, *where), words, value) for where, words, value in inside)
        elif not setting.takes(given[key]):
            yield (key,), setting.words, given[key]
