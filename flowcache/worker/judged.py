"""What walks came to, in a file, so that a command that was killed goes on."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any


class Judged:
    """A line for each value, by what it is of; a line that a kill cut off is left out."""

    def __init__(self, file: Path):
        self.file = file

    @cached_property
    def known(self) -> dict[str, float]:
        lines = self.file.read_text().split("\n") if self.file.exists() else []
        return dict(json.loads(line) for line in lines if line.endswith("]"))

    def value(self, of: Sequence[Any], judge: Callable[[], float]) -> float:
        """Judged now where it was not before. of: what JSON or a dataclass can say."""
        said = json.dumps(of, default=vars)
        key = hashlib.sha256(said.encode()).hexdigest()[:24]
        if key not in self.known:
            self.known[key] = judge()
            with self.file.open("a") as file:
                file.write("\n" + json.dumps([key, self.known[key]]))
        return self.known[key]
