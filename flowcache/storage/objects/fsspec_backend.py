"""Objects through fsspec: `memory://`, and what the clouds have in common."""

import errno
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import fsspec

from flowcache.errors import StoreError, masked
from flowcache.storage.objects.backend import OF_MACHINE, Entry, advised

PASSING = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO}


class RemoteBackend:
    """One fsspec filesystem. Objects are sent in one call each; file-like writers are never used, because
    they publish what was written so far when an exception leaves them."""

    reading: Mapping[str, Any] = {}  # arguments of its calls, by which they end in time
    listing: Mapping[str, Any] = {}

    def __init__(self, url: str, options: dict[str, Any]):
        self.url = url
        self.fs = self.open_filesystem(self.settings(options))
        self.root = self.fs._strip_protocol(url).rstrip("/")
        self._lock = threading.Lock()  # fsspec's memory filesystem looks and writes in two steps

    def settings(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"use_listings_cache": False, **options}

    def open_filesystem(self, settings: dict[str, Any]) -> Any:
        return fsspec.filesystem(self.url.partition("://")[0], skip_instance_cache=True, **settings)

    def within(self, size: int = 0) -> Mapping[str, Any]:
        """The same of calls that send so many bytes."""
        return {}

    def check(self) -> None:
        """Nothing is wrong with memory."""

    def put(self, key: str, data: bytes) -> None:
        self.fs.pipe_file(self._path(key), data)

    def create(self, key: str, data: bytes) -> None:
        with self._lock:
            if self.fs.exists(self._path(key)):
                raise FileExistsError(key)
            self.fs.pipe_file(self._path(key), data, mode="create")

    def get(self, key: str) -> bytes:
        return self.fs.cat_file(self._path(key), **self.reading)

    def size(self, key: str) -> int | None:
        try:
            info = self.fs.info(self._path(key), **self.within())
        except FileNotFoundError:
            return None
        return None if info["type"] == "directory" else info["size"]

    def list(self, prefix: str) -> Iterator[Entry]:
        folder = self._path(prefix) if prefix else self.root
        try:
            found = self.fs.find(folder, detail=True, **self.listing)
        except FileNotFoundError as fault:
            if self.absent(fault):
                return
            raise
        if not isinstance(found, dict):
            return  # adlfs: the folder is an object, and nothing below it
        for path, info in found.items():
            # some filesystems list an object as its own folder, and what consoles leave to mark one
            if path.startswith(f"{folder}/") and not path.endswith("/"):
                yield Entry(path[len(self.root) + 1 :], info["size"])

    def leftovers(self, before: float) -> Iterator[Entry]:
        """None: an object that did not arrive whole is not there."""
        return iter(())

    def delete(self, key: str) -> None:
        try:
            self.fs.rm_file(self._path(key), **self.within())
        except FileNotFoundError:
            return

    def sign(self, key: str, seconds: int) -> str:
        raise StoreError(f"{masked(self.url)}: this kind of storage cannot sign links; accepted: s3://, gs://, az://")

    def absent(self, fault: FileNotFoundError) -> bool:
        """Whether only the object is missing, and not all that should be around it."""
        return True

    def passing(self, fault: Exception) -> bool:
        return isinstance(fault, (ConnectionError, TimeoutError)) or getattr(fault, "errno", None) in PASSING

    def of_machine(self, fault: Exception) -> bool:
        return isinstance(fault, PermissionError) or getattr(fault, "errno", None) in OF_MACHINE

    def explain(self, fault: Exception) -> str:
        return advised(str(fault) or type(fault).__name__, fault)

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}"
