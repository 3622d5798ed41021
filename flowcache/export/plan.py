"""What all forms of an export share: their files, and what of them comes last."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from flowcache.export.film import Film
from flowcache.export.target import File

Read = Callable[[Film], bytes]  # the film as one MP4


@dataclass(frozen=True)
class Plan:
    """files: in any order. index: what makes them a dataset, once all of them are there. whole: nothing else of an
    earlier export may lie beside them."""

    files: list[File]
    index: list[File]
    whole: bool = True

    def as_of(self, what: str) -> "Plan":
        """The same files, made from this, too."""
        files, index = (
            [replace(file, source=f"{file.source} {what}") for file in part] for part in (self.files, self.index)
        )
        return replace(self, files=files, index=index)


class Form(Protocol):
    def __call__(self, films: Sequence[Film], read: Read) -> Plan: ...
