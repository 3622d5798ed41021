"""Every error that flowcache raises on purpose, and the exit code that the command line gives it."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from flowcache.masking import masked as masked

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
MOST = 300  # characters of a field that are printed: it may be the name of a tensor
MESSAGE = 1400  # of a message: what a file says may be anything, and what is accepted stands at the end


class FlowcacheError(Exception):
    """Base of all deliberate errors, without credentials; `exit_code` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str = ""):
        super().__init__(masked(message))


def printable(text: str) -> str:
    """With what a terminal would obey, or can't write, as an escape: names inside a file may be anything."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def shortened(message: str) -> str:
    """Its begin and its end, where it is longer than anybody reads."""
    left_out = len(message) - MESSAGE
    return (
        message if left_out <= 0 else f"{message[:MOST]} ... ({left_out:,} characters) ... {message[MOST - MESSAGE :]}"
    )


@dataclass(frozen=True)
class Problem:
    """One fault of an input: where it is, what was given, what would be accepted. Without credentials."""

    file: str
    field: str
    message: str
    row: int | None = None  # 1-based row of a manifest; None for a fault of the whole file
    video: str | None = None  # the row's id, where it has a usable one
    rows: int = 1  # for how many it stands: this one and later ones of which nothing more is said

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", masked(self.file))
        object.__setattr__(self, "message", shortened(masked(self.message)))

    def __str__(self) -> str:
        row = "" if self.row is None else f" row {self.row}"
        field = f" {self.field[:MOST]}:" if self.field else ""
        return printable(f"{self.file}{row}:{field} {self.message}")


class AtWork(FlowcacheError):
    """Another driver renders into this output, and this one leaves it to that one."""

    exit_code = 5


class InputError(FlowcacheError):
    """Bad input, found before any work started. Holds every fault, not only the first."""

    exit_code = 2

    def __init__(self, problems: list[Problem]):
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def problems_of(read: Callable[[], object]) -> list[Problem]:
    """What is wrong with an input, found by reading it."""
    try:
        read()
    except InputError as error:
        return error.problems
    return []


class StoreError(FlowcacheError):
    """The object store refused or lost something: never a video's fault. The message names the URL and the cause.

    `passing`: it did not answer as it should for a while, and may do so again. `of_machine`: the fault lies with this
    machine (its credentials, rights or disk), and another one may fare better.
    """

    def __init__(self, message: str, passing: bool = False, of_machine: bool = False):
        self.passing, self.of_machine = passing, of_machine
        super().__init__(message)


class NoRun(StoreError):
    """Nothing was ever rendered there: the address is the fault, as a rule."""

    exit_code = 2


class ObjectError(StoreError):
    """The store answered well, and the object is missing, damaged or another's: the fault of its video alone."""


class OutOfMemory(FlowcacheError):
    """A segment does not fit the GPU; the message says what it needs, and what would fit."""


class MediaError(FlowcacheError):
    """A picture or video cannot be fetched or decoded; the message is the cause in a person's words.

    `away`: as of UnreadableError.
    """

    def __init__(self, message: str, away: bool = False):
        self.away = away
        super().__init__(message)


class UnreadableError(FlowcacheError):
    """Something can't be opened, fetched or read; the message says what is wrong with it, without its URL.

    `slow`: time was up. `away`: where it lies did not answer as it should, which says nothing of what lies there.
    """

    def __init__(self, message: str, slow: bool = False, away: bool = False):
        self.slow, self.away = slow, away
        super().__init__(message)


FIRST_LINE = 1000  # characters


def first_line(error: BaseException) -> str:
    """Of what it says, its beginning; its type where it says nothing."""
    return (words(error).strip().splitlines() or [type(error).__name__])[0][:FIRST_LINE]


def words(error: BaseException) -> str:
    """What it says; nothing where its own code fails to."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 (whatever a stranger's `__str__` raises)
        return ""
