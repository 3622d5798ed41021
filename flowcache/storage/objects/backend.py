"""What one kind of storage must do for `objects.Store`."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

OF_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
ROOM = "make room there, or raise the quota"
ADVICE = {  # by what the operating system says: what to do about it
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EROFS: "mount it for writing",
    errno.EACCES: "give this user the right to read and write there",
    errno.EPERM: "give this user the right to read and write there",
    errno.ESTALE: "mount it anew",
}


@dataclass(frozen=True)
class Entry:
    """One listed object."""

    key: str  # relative to the store's root
    size: int  # bytes


def advised(words: str, fault: Exception) -> str:
    """A fault in words, and what to do about it where that is known."""
    advice = ADVICE.get(getattr(fault, "errno", None) or 0)
    return f"{words}; {advice}" if advice else words


class Backend(Protocol):
    """One kind of storage. Keys are relative to its root; every object is written whole or not at all.

    Whatever exception an operation raises is a fault of the store, which the last three methods tell about.
    """

    def check(self) -> None:
        """Refuse with StoreError what is known to be unusable before anything is tried."""
        ...

    def put(self, key: str, data: bytes) -> None: ...

    def create(self, key: str, data: bytes) -> None:
        """Put if absent; raises anything where something is there."""
        ...

    def get(self, key: str) -> bytes:
        """FileNotFoundError where nothing is there."""
        ...

    def size(self, key: str) -> int | None: ...

    def list(self, prefix: str) -> Iterator[Entry]: ...

    def leftovers(self, before: float) -> Iterator[Entry]:
        """Writes that were begun and never finished, last touched before then (unix seconds)."""
        ...

    def delete(self, key: str) -> None:
        """No error where nothing is there."""
        ...

    def sign(self, key: str, seconds: int) -> str:
        """A URL that anybody can read the object with for so long; StoreError where that cannot be made."""
        ...

    def passing(self, fault: Exception) -> bool:
        """Whether trying again may help."""
        ...

    def of_machine(self, fault: Exception) -> bool:
        """Whether the fault lies with this machine: its credentials, rights or disk."""
        ...

    def explain(self, fault: Exception) -> str:
        """The fault in words that a person understands."""
        ...
