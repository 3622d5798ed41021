"""Where an export is written: each file whole, and not again by a later run of the same command."""

import json
import secrets
import threading
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import TypeVar

from flowcache.errors import InputError, Problem, masked
from flowcache.storage.documents import sha256
from flowcache.storage.objects.store import Store
from flowcache.storage.typed import read_json, typed

# What was written (Receipt), and what was begun (Claim), as JSON lines. Readers of datasets pass by such a folder.
RECEIPTS = "__export__"
WRITTEN, BEGUN = ".jsonl", ".begun"
TOGETHER = 64  # files that one object of receipts tells
LEFT = " of an earlier export, which this one has not"
FOREIGN = ", written by no export, or changed since"
ALL_OF_IT = "an empty folder, the same selection and format, or one that has all of it"
T = TypeVar("T", "Claim", "Receipt")


@dataclass(frozen=True)
class File:
    """One to be written. source: names what it is made from, so that an equal one needs not be made again. videos: of a
    dataset, whose name does not say it: the ids of those that it holds."""

    key: str
    source: str
    make: Callable[[], bytes]
    videos: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A file that an export set out to write, and may have written where no Receipt says so: it was killed."""

    key: str
    source: str


@dataclass(frozen=True)
class Receipt:
    key: str
    source: str
    bytes: int
    sha256: str
    videos: list[str] = field(default_factory=list)


class Target:
    """A folder or prefix, with what earlier exports say that they wrote there."""

    def __init__(self, store: Store):
        self.store = store
        self.sizes = {entry.key: entry.size for entry in store.list()}
        written = self._read(WRITTEN, Receipt)
        last = {one.key: one for one in written}
        self.receipts = {key: one for key, one in last.items() if self.sizes.get(key) == one.bytes}
        told = {(one.key, one.source) for one in written}
        self.claims = {claim for claim in self._read(BEGUN, Claim) if (claim.key, claim.source) not in told}
        self._new: list[Receipt] = []
        self._lock = threading.Lock()

    def _read(self, end: str, kind: type[T]) -> list[T]:
        found = list[T]()
        for key in sorted(key for key in self.sizes if key.startswith(f"{RECEIPTS}/") and key.endswith(end)):
            try:
                lines = (self.store.find(key) or b"").decode().splitlines()
                found += [typed(kind(**read_json(line.encode()))) for line in lines]
            except (ValueError, TypeError, RecursionError):  # not ours, or damaged: nothing is told
                continue
        return found

    def check_whole(self, files: list[File], overwrite: bool) -> None:
        """InputError where an earlier export left files or videos that this one has not: readers would take the files
        for its own, and the videos would be lost."""
        self._refuse(self.receipts.keys() - {file.key for file in files}, LEFT, ALL_OF_IT)
        before = {video for one in self.receipts.values() for video in one.videos}
        if not overwrite:
            self._refuse(before - {video for file in files for video in file.videos}, LEFT, f"{ALL_OF_IT}, --overwrite")

    def check_foreign(self, files: list[File]) -> None:
        """InputError where a file lies at a name of ours that no export wrote, or that was changed since."""
        ours = self.receipts.keys() | {claim.key for claim in self.claims}
        self._refuse(
            (self.sizes.keys() & {file.key for file in files}) - ours, FOREIGN, "another folder, or --overwrite"
        )

    def _refuse(self, found: Set[str], why: str, accepted: str) -> None:
        if found:
            many = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
            what = f"{masked(self.store.url)} holds {min(found)}{many}{why}"
            raise InputError([Problem("--to", "", f"{what}; accepted: {accepted}")])

    def begin(self, files: list[File]) -> None:
        """Write down what is going to be written, so that a killed export's files are known to be its own."""
        wanted = {Claim(file.key, file.source) for file in files if not self._there(file)}
        if new := sorted(wanted - self.claims, key=lambda claim: claim.key):
            self._note(BEGUN, new)

    def _there(self, file: File) -> Receipt | None:
        known = self.receipts.get(file.key)
        return known if known and known.source == file.source else None

    def _note(self, end: str, lines: Sequence[Claim | Receipt]) -> None:
        data = "".join(json.dumps(asdict(one)) + "\n" for one in lines)
        name = f"t{time.time_ns():020}{secrets.token_hex(4)}"  # later ones sort after earlier ones
        self.store.put(f"{RECEIPTS}/{name}{end}", data.encode())

    def write(self, file: File) -> Receipt:
        """Make and put it; where it lies there already, what was told of it."""
        if known := self._there(file):
            return known
        data = file.make()
        self.store.put(file.key, data)
        made = Receipt(file.key, file.source, len(data), sha256(data), list(file.videos))
        with self._lock:
            self.receipts[file.key] = made
            self._new.append(made)
            full = len(self._new) >= TOGETHER
        if full:
            self.tell()
        return made

    def tell(self) -> None:
        """Write down what was written since the last time."""
        with self._lock:
            new, self._new = self._new, []
        if new:
            self._note(WRITTEN, new)
