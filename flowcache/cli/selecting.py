"""Options that `render`, `plan` and `submit` share: which rows are meant, and what all are given."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowcache.errors import InputError, Problem, problems_of

if TYPE_CHECKING:
    from flowcache.inputs.selection import Selection


def selection_of(
    only: Sequence[str] | None,
    where: str | None,
    sample: int | None,
    limit: int | None,
    values: Sequence[str] | None,
    seed: int | None = None,
    steps: int | None = None,
    size: str | None = None,
    guidance: float | None = None,
) -> "Selection":
    """InputError with every fault."""
    from flowcache.inputs import selection as rows
    from flowcache.inputs.where import Where
    from flowcache.inputs.where import where as condition

    direct = {"seed": seed, "steps": steps, "guidance": guidance}
    problems = [Problem("--only", "", f"is blank; accepted: {rows.PATTERN}") for one in only or () if not one.strip()]
    said, meant, pixels = dict[str, Any](), list[Where](), dict[str, int]()
    problems += problems_of(lambda: meant.append(condition(where)) if where is not None else None)
    problems += problems_of(lambda: pixels.update(rows.frame_size(size)))
    problems += problems_of(lambda: said.update(rows.settings(values or (), direct | pixels)))
    if problems:
        raise InputError(problems)
    return rows.Selection(tuple(only or ()), meant[0] if meant else None, sample, limit, said)


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
