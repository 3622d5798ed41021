"""What walks came to, in a file, so that a command that was killed goes on."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any


class Judged:
    """A line for each value, which JSON can say, by what it is of; a line that a kill cut off is left out."""

    def __init__(self, file: Path):
        self.file = file

    @cached_property
    def known(self) -> dict[str, Any]:
        lines = self.file.read_text().split("\n") if self.file.exists() else []
        return dict(line for line in map(_read, lines) if line)

    def value(self, of: Sequence[Any], judge: Callable[[], Any]) -> Any:
        """Judged now where it was not before. of: what JSON or a dataclass can say."""
        said = json.dumps(of, default=vars)
        key = hashlib.sha256(said.encode()).hexdigest()[:24]
        if key not in self.known:
            self.known[key] = judge()
            with self.file.open("a") as file:
                file.write("\n" + json.dumps([key, self.known[key]]))
        return self.known[key]


def _read(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:  # cut off, or blank
        return None
