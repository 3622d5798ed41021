"""Where an export is written: each file whole, and not again by a later run of the same command."""

import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass

from flowcache.errors import InputError, Problem, masked
from flowcache.storage.documents import sha256
from flowcache.storage.objects.store import Store
from flowcache.storage.typed import read_json, typed

# What was written, JSON lines: {"key", "source", "bytes", "sha256"}. Readers of datasets pass by such a folder.
RECEIPTS = "__export__"
TOGETHER = 64  # files that one object of receipts tells


@dataclass(frozen=True)
class File:
    """One to be written. source: names what it is made from, so that an equal one needs not be made again."""

    key: str
    source: str
    make: Callable[[], bytes]


@dataclass(frozen=True)
class Receipt:
    key: str
    source: str
    bytes: int
    sha256: str


class Target:
    """A folder or prefix, with what earlier exports say that they wrote there."""

    def __init__(self, store: Store):
        self.store = store
        self.sizes = {entry.key: entry.size for entry in store.list()}
        self.receipts = {one.key: one for one in self._read() if self.sizes.get(one.key) == one.bytes}
        self._new: list[Receipt] = []
        self._lock = threading.Lock()

    def _read(self) -> list[Receipt]:
        found = list[Receipt]()
        for key in sorted(key for key in self.sizes if key.startswith(f"{RECEIPTS}/")):
            try:
                lines = (self.store.find(key) or b"").decode().splitlines()
                found += [typed(Receipt(**read_json(line.encode()))) for line in lines]
            except (ValueError, TypeError, RecursionError):  # not ours, or damaged: what it told is made anew
                continue
        return found

    def check(self, files: list[File]) -> None:
        """InputError where an earlier export left files that this one has not, which readers would take for its own."""
        extra = sorted(self.receipts.keys() - {file.key for file in files})
        if extra:
            many = f" and {len(extra) - 1:,} more" if len(extra) > 1 else ""
            why = f"holds {extra[0]}{many} of an earlier export, which this one has not"
            accepted = "an empty folder, the same selection and format, or one that has all of it"
            raise InputError([Problem("--to", "", f"{masked(self.store.url)} {why}; accepted: {accepted}")])

    def write(self, file: File) -> Receipt:
        """Make and put it; where it lies there already, what was told of it."""
        known = self.receipts.get(file.key)
        if known and known.source == file.source:
            return known
        data = file.make()
        self.store.put(file.key, data)
        made = Receipt(file.key, file.source, len(data), sha256(data))
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
            lines = "".join(json.dumps(asdict(one)) + "\n" for one in new)
            self.store.put(f"{RECEIPTS}/{secrets.token_hex(8)}.jsonl", lines.encode())
