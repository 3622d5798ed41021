"""Object storage as the rest of flowcache sees it: small whole objects, put, created once, read, listed.

The traps behind these choices (partial objects published by file-like writers, racy exclusive opens,
lost responses, listings caches) are told in docs/storage.md.
"""

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, TypeVar

from flowcache.errors import ObjectError, StoreError, masked
from flowcache.inputs.output_url import check_endpoint
from flowcache.storage.objects.backend import Backend, Entry
from flowcache.storage.objects.registry import connect, normalise

T = TypeVar("T")

UNSAFE = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|\\")  # a part that is empty or points elsewhere
RETRY_PAUSES = (0.2, 0.6, 1.8, 5.4)  # seconds before the second, third ... attempt after a passing fault
REFUSED_PAUSES = (1.0,)  # the same after any other: few servers refuse for a moment
LIMIT = 300.0  # seconds after which an operation is not tried again
FIRST_LIMIT = 9.0  # the same of a store that has not answered this process yet: its address may be wrong
LOOK_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before listing again what was written and is not shown yet


def looks() -> Iterator[None]:
    """As often as to list before what was written counts as not there: some stores' listings lag."""
    yield
    for pause in LOOK_PAUSES:
        time.sleep(pause)
        yield


class MissingObject(ObjectError):
    """The object is not there."""


class Unusable(StoreError):
    """No run can be kept in the store: it does what it is asked, and not what it should."""


class Store:
    """Objects under one root: a local folder, `s3://`, `gs://`, `az://`, or `memory://`; InputError for others.

    `storage_options` go to the fsspec filesystem (`endpoint_url`, `key`, `secret`, ...). Picklable: the
    connection is made in each process at first use. Whatever goes wrong is a StoreError, naming object and cause.
    """

    def __init__(self, url: str, **storage_options: Any):
        check_endpoint(storage_options.get("endpoint_url"))
        self.url = normalise(url)
        self.options = storage_options
        self._backend: Backend | None = None
        self._process = 0  # that connected the backend
        self._met = False  # whether it has done anything that it was asked

    def __repr__(self) -> str:
        return f"Store({masked(self.url)!r})"

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_backend": None}

    @property
    def backend(self) -> Backend:
        if self._backend is None or self._process != os.getpid():  # a connection does not survive a fork
            self._backend, self._process, self._met = connect(self.url, self.options), os.getpid(), False
        return self._backend

    def uri(self, key: str) -> str:
        return f"{self.url}/{key}"

    def put(self, key: str, data: bytes) -> None:
        """Write `data` whole or not at all; replaces what is there."""
        self._attempt("write", key, lambda: self.backend.put(checked(key), data))

    def get(self, key: str) -> bytes:
        """The object's bytes; MissingObject where there is none."""
        return self._attempt("read", key, lambda: self.backend.get(checked(key)))

    def find(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""
        try:
            return self.get(key)
        except MissingObject:
            return None

    def exists(self, key: str) -> bool:
        return self._attempt("look up", key, lambda: self.backend.size(checked(key))) is not None

    def leftovers(self, before: float) -> list[Entry]:
        """Local writes that were never finished, last touched before then (unix seconds)."""
        return self._attempt("list", "", lambda: list(self.backend.leftovers(before)))

    def list(self, prefix: str = "") -> list[Entry]:
        """All objects below the folder `prefix`, sorted by key; [] where there is no such folder.

        Names that begin with a dot are unfinished local writes and probes, and are left out.
        """
        folder = checked(prefix.rstrip("/")) if prefix else ""
        found = self._attempt("list", folder, lambda: list(self.backend.list(folder)))
        each = {e.key: e for e in found if not e.key.rpartition("/")[2].startswith(".")}  # pages may overlap
        return sorted(each.values(), key=lambda e: e.key)

    def sign(self, key: str, seconds: int) -> str:
        """A URL that anybody can read the object with for so long; StoreError of what is no cloud storage."""
        return self._attempt("sign", key, lambda: self.backend.sign(checked(key), seconds))

    def delete(self, key: str) -> None:
        """Remove the object; no error where there is none."""
        self._attempt("delete", key, lambda: self.backend.delete(checked(key)))

    def create(self, key: str, data: bytes) -> bool:
        """Put if absent, never half visible. True: the object now holds exactly `data`.

        Any failure is settled by reading back: a server may have stored the object and lost the answer,
        and gateways disagree on the error for "already there". False: somebody else's bytes are there.
        """
        if not data:
            raise ObjectError(f"cannot create {self._name(key)}: an exclusive object must not be empty")

        def attempt() -> bool:
            try:
                self.backend.create(checked(key), data)
                return True
            except Exception as fault:
                stored = self.find(key)
                if stored is None:
                    raise fault
                return stored == data

        return self._attempt("create", key, attempt)

    def probe(self) -> None:
        """Check that the root keeps what is written, each under its own name, that listings show it, and that exclusive
        creates are exclusive; else StoreError. Leaves nothing behind, unless it is interrupted."""
        self.backend.check()
        name = secrets.token_hex(6)
        key, data = f"_run/.probe-{name}", f"probe {name}".encode()  # bytes that no other object has
        try:
            self._attempt("write to", key, lambda: self.backend.put(key, data), name=masked(self.url))
            fault = self._fault_of(key, data)
            if fault:
                raise Unusable(f"{masked(self.url)} {fault}. Use a store such as AWS S3, Ceph, MinIO or a local disk")
            self.delete(key)
        except Exception:  # Ctrl-C waits for no store that may be silent
            self._quietly_delete(key)
            raise

    def _fault_of(self, key: str, data: bytes) -> str | None:
        """What is wrong with a store in which `data` was just put at `key`."""
        if self.create(key, b"second"):
            return "ignores exclusive creates (If-None-Match): two writers could overwrite each other's commits"
        if self.find(key) != data:
            return "does not give back what was written to it"
        if self.exists(f"{key}-2"):
            return "holds one object under every name"
        if not self._listed(Entry(key, len(data))):
            seconds = sum(LOOK_PAUSES)
            return f"does not list what was written to it {seconds:.0f} s before, though it gives it back"
        return None

    def _listed(self, entry: Entry) -> bool:
        folder = entry.key.rpartition("/")[0]
        return any(entry in self._attempt("list", folder, lambda: list(self.backend.list(folder))) for _ in looks())

    def _quietly_delete(self, key: str) -> None:
        try:
            self.backend.delete(key)
        except Exception:  # noqa: BLE001 (whatever comes from below)
            return  # a probe left behind is hidden from listings; the first error is the one to show

    def _name(self, key: str) -> str:
        return masked(self.uri(key) if key else self.url)

    def _attempt(self, verb: str, key: str, operation: Callable[[], T], name: str | None = None) -> T:
        """Run `operation`, again after a fault; StoreError after the last one, whatever it was that came from below."""
        backend, begun = self.backend, time.monotonic()
        for tried in count():
            try:
                done, self._met = operation(), True
                return done
            except StoreError:
                raise
            except FileNotFoundError as fault:
                self._met = True
                if verb == "read":
                    raise MissingObject(f"{self._name(key)} does not exist") from fault
                last: Exception = fault
            except Exception as fault:  # noqa: BLE001 (whatever comes from below)
                last = fault
            pauses = RETRY_PAUSES if backend.passing(last) else REFUSED_PAUSES
            if tried >= len(pauses) or time.monotonic() - begun > (LIMIT if self._met else FIRST_LIMIT):
                message = f"cannot {verb} {name or self._name(key)}: {masked(backend.explain(last))}"
                raise StoreError(message, backend.passing(last), backend.of_machine(last)) from last
            time.sleep(pauses[tried])
        raise AssertionError("unreachable")


def checked(key: str) -> str:
    """`key` itself; ObjectError where it is no plain relative key (it could leave the root)."""
    if UNSAFE.search(key) or not key.isprintable():
        raise ObjectError(f"{key!r} is no valid object key")
    return key
