"""What walks came to, in a file, so that a command that was killed goes on."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from flowcache.families.spec_file import number
from flowcache.models.whole_files import writing


def numbers(value: Any) -> bool:
    """Whether it is a number, or a list of such or of lists of them."""
    return all(map(numbers, value)) if isinstance(value, list) else number(value)


class Journal:
    """A line for each value, by what it is of; what is none, as a kill cuts one off, is left out."""

    def __init__(self, file: Path):
        self.file = file

    @cached_property
    def known(self) -> dict[str, Any]:
        lines = self.file.read_bytes().split(b"\n") if self.file.exists() else []
        return dict(line for line in map(_read, lines) if line)

    def values(
        self,
        of: Sequence[Sequence[Any]],
        walked: Callable[[list[int]], Iterable[tuple[int, Any]]],
        holds: Callable[[Any], bool] = numbers,
    ) -> list[Any]:
        """Those that are not there are walked for now, by number, and written down one by one. of, values: what JSON
        can say; of: dataclasses, too. holds: of one that was read, whether it can be one at all. FlowcacheError where
        nothing can be written."""
        keys = [hashlib.sha256(json.dumps(each, default=vars).encode()).hexdigest()[:24] for each in of]
        if missing := [number for number, key in enumerate(keys) if not holds(self.known.get(key))]:
            for number, value in walked(missing):
                self.known[keys[number]] = value
                line = "\n" + json.dumps([keys[number], value])
                with writing(self.file), self.file.open("ab", buffering=0) as file:
                    file.write(line.encode())  # at once, should another command write there, too
        return [self.known[key] for key in keys]


def _read(line: bytes) -> tuple[str, Any] | None:
    """Key and value; None: it was cut off, is blank or another's."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return (found[0], found[1]) if isinstance(found, list) and len(found) == 2 and isinstance(found[0], str) else None
