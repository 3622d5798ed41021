"""Ids that somebody names and nothing has: told in one way, whichever command they were given to."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from flowcache.errors import Problem
from flowcache.inputs.written import shown

TOLD = 5  # that are told one by one
FEW = 20  # ids that a message lists
ACCEPTED = "accepted: an id, or a pattern of one with *, ? and [abc]"


def strangers(
    names: Iterable[str], known: Collection[str], of: str, where: str, field: str = "", patterns: bool = False
) -> list[Problem]:
    """A problem for each of `names` that is none of the `known` ids. of: what has these, such as "run 3f2a"; where,
    field: of the problems. patterns: names may be such, and one is known that fits an id."""

    def there(name: str) -> bool:
        return name in ids or (patterns and any(fnmatchcase(one, name) for one in ids))

    ids = frozenset(known)
    missed = [name for name in dict.fromkeys(names) if not there(name)]
    told = (f"{shown(name)} names no video of {of}; {_near(name, ids)}" for name in missed[:TOLD])
    more = [f"{len(missed) - TOLD} more name no video of it either"] if len(missed) > TOLD else []
    return [Problem(where, field, message) for message in (*told, *more)]


def _near(name: str, known: Collection[str]) -> str:
    """What it may stand for, else what there is."""
    if alike := get_close_matches(name[:100], sorted(known), 3):
        return f"did you mean {' or '.join(map(shown, alike))}?"
    return f"known are {', '.join(sorted(known))}" if 0 < len(known) <= FEW else ACCEPTED
