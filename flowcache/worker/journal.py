"""What walks came to, in a file, so that a command that was killed goes on."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any


class Journal:
    """A line for each value, by what it is of; a line that a kill cut off is left out."""

    def __init__(self, file: Path):
        self.file = file

    @cached_property
    def known(self) -> dict[str, Any]:
        lines = self.file.read_text().split("\n") if self.file.exists() else []
        return dict(line for line in map(_read, lines) if line)

    def values(
        self, of: Sequence[Sequence[Any]], walked: Callable[[list[int]], Iterable[tuple[int, Any]]]
    ) -> list[Any]:
        """Those that are not there are walked for now, by number, and written down one by one. of, values: what JSON
        can say; of: dataclasses, too."""
        keys = [hashlib.sha256(json.dumps(each, default=vars).encode()).hexdigest()[:24] for each in of]
        if missing := [number for number, key in enumerate(keys) if key not in self.known]:
            for number, value in walked(missing):
                self.known[keys[number]] = value
                with self.file.open("a") as file:
                    file.write("\n" + json.dumps([keys[number], value]))
        return [self.known[key] for key in keys]


def _read(line: str) -> Any:
    """None: it was cut off, or is blank."""
    try:
        return json.loads(line)
    except ValueError:
        return None
