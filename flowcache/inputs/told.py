"""What is wrong with a manifest: so much in full, and how many rows there are besides."""

from collections.abc import Sequence

from flowcache.errors import Problem

MOST = 1000  # problems that are told in full


class Told:
    """Problems in the order in which they are found: `add` those of a row together."""

    def __init__(self, most: int = MOST):
        self._most = most
        self.clear()

    def clear(self) -> None:
        self._found: list[Problem] = []
        self._first: Problem | None = None  # that is not told
        self._rows = 0  # with problems that are not told

    @property
    def full(self) -> bool:
        """Whether of further rows nothing is of interest but that they are bad."""
        return len(self._found) >= self._most

    def add(self, problems: Sequence[Problem]) -> None:
        """Of one row, or of the whole file."""
        if not problems:
            return
        if problems[0].row is None or not self.full:
            self._found += problems[: max(self._most - len(self._found), 1)]
            return
        self._first = self._first or problems[0]
        self._rows += 1

    @property
    def problems(self) -> list[Problem]:
        if self._first is None:
            return list(self._found)
        more = f", as {self._rows - 1:,} rows after it are" if self._rows > 1 else ""
        said = f"is at fault{more}; the first {self._most:,} problems are told one by one"
        return [*self._found, Problem(self._first.file, "", said, self._first.row, self._first.video, self._rows)]
