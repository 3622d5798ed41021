"""Options that `render`, `plan` and `submit` share: which rows are meant, and what all are given."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

from flowcache.cli import options
from flowcache.errors import InputError, Problem, problems_of

if TYPE_CHECKING:
    from flowcache.inputs.selection import Selection

OPTIONS = {  # by parameter: the option, as a command line has it, and its declaration
    "only": ("--only", options.Only),
    "where": ("--where", options.WhereOption),
    "sample": ("--sample", options.Sample),
    "limit": ("--limit", options.Limit),
    "values": ("--set", options.SetOption),
    "seed": ("--seed", options.Seed),
    "steps": ("--steps", options.Steps),
    "size": ("--size", options.Size),
    "guidance": ("--guidance", options.Guidance),
    "extra": ("--extra", options.ExtraOption),
    "strict": ("--strict", options.Strict),
}


@dataclass(frozen=True)
class Chosen:
    """What these options say; `words`: as another process's command line has them."""

    rows: "Selection"
    words: tuple[str, ...]


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options, which it gets as its parameter `chosen`."""

    @wraps(command)
    def wrapped(**given: Any) -> None:
        said = {name: given.pop(name) for name in OPTIONS}
        words = written({option: said[name] for name, (option, _) in OPTIONS.items()})
        command(**given, chosen=Chosen(selection_of(**said), tuple(words)))

    signature = inspect.signature(command)
    own = [one for name, one in signature.parameters.items() if name != "chosen"]
    kind = inspect.Parameter.KEYWORD_ONLY
    ours = [inspect.Parameter(name, kind, default=None, annotation=of) for name, (_, of) in OPTIONS.items()]
    every = [one.replace(kind=kind) for one in own] + ours
    vars(wrapped)["__signature__"] = signature.replace(parameters=every)  # what typer reads
    wrapped.__annotations__ = {one.name: one.annotation for one in every}
    return wrapped


def selection_of(
    only: Sequence[str] | None,
    where: Sequence[str] | None,
    sample: int | None,
    limit: int | None,
    values: Sequence[str] | None,
    seed: int | None = None,
    steps: int | None = None,
    size: str | None = None,
    guidance: float | None = None,
    extra: str | None = None,
    strict: bool | None = None,
) -> "Selection":
    """InputError with every fault."""
    from flowcache.inputs import selection as rows
    from flowcache.inputs.where import Where
    from flowcache.inputs.where import where as condition

    direct = {"seed": seed, "steps": steps, "guidance": guidance}
    problems = [Problem("--only", "", f"is blank; accepted: {rows.PATTERN}") for one in only or () if not one.strip()]
    said, meant, pixels = dict[str, Any](), list[Where](), dict[str, int]()
    problems += problems_of(lambda: meant.append(condition(*where)) if where else None)
    problems += problems_of(lambda: pixels.update(rows.frame_size(size)))
    if extra not in (None, *rows.EXTRAS):
        problems.append(Problem("--extra", "", f"got {extra!r}; accepted: {', '.join(rows.EXTRAS)}"))
    problems += problems_of(lambda: said.update(rows.settings(values or (), direct | pixels)))
    if problems:
        raise InputError(problems)
    kept: Any = extra or rows.EVERY.extra
    return rows.Selection(tuple(only or ()), meant[0] if meant else None, sample, limit, said, kept, bool(strict))


def check_as(rename: str | None, extend: bool) -> None:
    """InputError for a new id where nothing may be added."""
    if rename is not None and not extend:
        raise InputError([Problem("--as", "", "is given without --extend; accepted: both, as the row is added")])


def written(options: dict[str, object]) -> list[str]:
    """Options as a command line has them, for another process: names with their values, lists once for each."""
    found: list[str] = []
    for name, value in options.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            found += [] if one is None or one is False else [name] if one is True else [f"{name}={one}"]
    return found
