"""Commands that steer a run, from whoever may write to its store: one small object each, in the order of their numbers,
and beside each what became of it. All that a driver, or a reader, has to know follows from these alone."""

import getpass
import os
import secrets
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from flowcache.errors import ObjectError, masked
from flowcache.storage import layout
from flowcache.storage.documents import SCHEMA_VERSION, Damaged, canonical, parse, read_each, utc
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store

Verb = Literal["pause", "resume", "stop", "cancel", "skip", "prioritise", "add"]
How = Literal["cancelled", "skipped"]
Outcome = Literal["obeyed", "refused"]
STOPS: dict[str, How] = {"cancel": "cancelled", "skip": "skipped"}  # by verb, what becomes of videos
LAST = 10**18 - 1  # number, of which keys tell: of a later one no driver would hear
DAMAGED = "damaged"  # the verb of a command that can't be read


@dataclass(frozen=True)
class Command:
    """What somebody told the run. Written once."""

    number: int  # from 1, without gaps: commands are taken in this order
    verb: str  # a Verb, DAMAGED of one that can't be read
    by: str  # user@host
    at: float  # unix seconds
    videos: list[str] = field(default_factory=list)  # ids; of resume none: the run as a whole
    priority: int | None = None  # of prioritise
    manifest: str | None = None  # of add: a key below the root, or a URL
    name: str | None = None  # of that manifest, as it was given
    once: str = ""  # at random, so that no two commands are the same bytes
    schema_version: int = SCHEMA_VERSION

    def __str__(self) -> str:
        what = [str(self.priority)] if self.priority is not None else []
        what += [self.name] if self.name else []
        what += [*self.videos[:5], *([f"and {len(self.videos) - 5} more"] if len(self.videos) > 5 else [])]
        return f"command {self.number} ({' '.join([self.verb, *what])}) of {self.by}"


@dataclass(frozen=True)
class Taken:
    """What became of a command. Written once, by the driver that took it."""

    number: int
    holder: str  # name of the driver, as in `_holders`
    by: str  # the driver in words
    at: float  # unix seconds
    outcome: Outcome
    message: str
    problems: list[str] = field(default_factory=list)  # of add: why, row by row and field by field
    videos: list[str] = field(default_factory=list)  # of add: ids that its manifest names
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Withheld:
    """A video that somebody does not want any more."""

    how: How
    command: Command

    def __str__(self) -> str:
        when = utc(self.command.at)
        return f"{self.how} by {self.command.by}, {when} UTC (command {self.command.number})"


@dataclass(frozen=True)
class Log:
    """Every command, by number, and what became of those that were taken."""

    commands: tuple[Command, ...] = ()
    taken: dict[int, Taken] = field(default_factory=dict)

    @property
    def pending(self) -> list[Command]:
        return [command for command in self.commands if command.number not in self.taken]

    def obeyed(self, command: Command) -> bool:
        taken = self.taken.get(command.number)
        return taken is not None and taken.outcome == "obeyed"

    @property
    def paused(self) -> Command | None:
        """The command by which no segment is started; None where they are."""
        last = [one for one in self.commands if self.obeyed(one) and not one.videos and one.verb in ("pause", "resume")]
        return last[-1] if last and last[-1].verb == "pause" else None

    @property
    def withheld(self) -> dict[str, Withheld]:
        """By video: those that are not wanted any more."""
        found: dict[str, Withheld] = {}
        for command in self.commands:
            if not self.obeyed(command):
                continue
            if how := STOPS.get(command.verb):
                found |= dict.fromkeys(command.videos, Withheld(how, command))
            elif command.verb == "resume":
                found = {name: one for name, one in found.items() if name not in command.videos}
        return found


def caller() -> str:
    """Who gives a command: user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def give(store: Store, command: Command) -> Command:
    """Write the command under the next number, and return it with that. Of writers at once each gets one of its own."""
    number = max((one.number for one in listed(store, layout.CONTROL, "command")), default=0)
    while True:
        number += 1
        if number > LAST:
            raise ObjectError(
                f"{masked(store.uri(layout.command_key(number - 1)))} leaves no number to another command"
            )
        numbered = replace(command, number=number, once=secrets.token_hex(8))
        if store.create(layout.command_key(number), canonical(numbered)):
            return numbered


def acknowledge(store: Store, taken: Taken) -> bool:
    """Write down what became of a command; False where somebody else did so first."""
    key = layout.taken_key(taken.number)
    if store.create(key, canonical(taken)):
        return True
    if read_taken(store, taken.number) is not None:
        return False
    store.put(key, canonical(taken))  # a damaged one says nothing
    return True


def read_taken(store: Store, number: int) -> Taken | None:
    """None where nobody has taken the command yet, or what says so is damaged."""
    key = layout.taken_key(number)
    data = store.find(key)
    try:
        return None if data is None else parse(Taken, data, masked(store.uri(key)))
    except Damaged:
        return None


def read_log(store: Store, known: dict[str, Command | Taken] | None = None) -> Log:
    """One listing, and what is not yet `known` by its key, which is added to it."""
    known = {} if known is None else known
    there = listed(store, layout.CONTROL, "command", "taken")
    kinds: dict[str, type[Command] | type[Taken]] = {
        one.entry.key: Command if one.kind == "command" else Taken for one in there
    }
    spoilt = set[str]()
    for key, data in read_each(store, [one.entry.key for one in there if one.entry.key not in known]):
        if isinstance(data, bytes):  # else it is gone, or refused for now
            try:
                known[key] = parse(kinds[key], data, masked(store.uri(key)))
            except Damaged:
                spoilt.add(key)
    commands = [known_or_spoilt(known, spoilt, one.number) for one in there if one.kind == "command"]
    taken = (known.get(layout.taken_key(one.number)) for one in there if one.kind == "taken")
    return Log(
        tuple(one for one in commands if one is not None), {one.number: one for one in taken if isinstance(one, Taken)}
    )


def known_or_spoilt(known: dict[str, Command | Taken], spoilt: set[str], number: int) -> Command | None:
    """The command of that number; one that nobody can obey in place of what is no command."""
    key = layout.command_key(number)
    found = known.get(key)
    if isinstance(found, Command) and sound(found, number):
        return found
    return Command(number, DAMAGED, "nobody knows whom", 0.0) if found is not None or key in spoilt else None


def sound(command: Command, number: int) -> bool:
    """Whether it may be obeyed, of what lies at the place of that number."""
    told = command.number == number and command.verb in get_args(Verb)
    return told and (command.priority is not None) == (command.verb == "prioritise")


def unknown(ids: Iterable[str], videos: Collection[str]) -> list[str]:
    """Those of the ids that name no video."""
    there = set(videos)
    return [name for name in dict.fromkeys(ids) if name not in there]


def command_rows(run_id: str, log: Log) -> list[dict[str, Any]]:
    """The table of commands."""
    return [command_row(run_id, one, log.taken.get(one.number)) for one in log.commands]


def command_row(run_id: str, command: Command, taken: Taken | None) -> dict[str, Any]:
    told = [taken.message, *taken.problems] if taken else []
    return {
        "run_id": run_id,
        "number": command.number,
        "command": command.verb,
        "videos": command.videos or (taken.videos if taken else []),
        "priority": command.priority,
        "manifest": command.name,
        "by": command.by,
        "at": command.at,
        "taken_by": taken and taken.by,
        "taken_at": taken and taken.at,
        "outcome": taken and taken.outcome,
        "message": "\n".join(told) if taken else None,
    }
