"""Objects as files in a local (or network-mounted) folder."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from flowcache.errors import StoreError
from flowcache.storage.objects.backend import OF_MACHINE, Entry, advised

PASSING = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
# A temporary file that was moved into place meanwhile; somebody's link that leads nowhere, or around in a circle.
NOWHERE = {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}
LOST_AND_FOUND = "lost+found"  # of the file system, at the top of a disk; like many a dotted one not for us to read
UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.part")  # as `_stage` names them
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalBackend:
    """Whole files: written beside their place under a dotted name, made durable, then moved or linked there."""

    def __init__(self, root: str):
        self.root = root

    def check(self) -> None:
        """StoreError where the root, or what should be a folder above it, is a file."""
        for path in (Path(self.root), *Path(self.root).parents):
            if path.is_dir():
                return
            if path.exists():
                raise StoreError(f"{self.root}: {path} is a file, and a folder is needed")

    def put(self, key: str, data: bytes) -> None:
        path, temporary = self._stage(key, data)
        try:
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        sync_folder(path.parent)

    def create(self, key: str, data: bytes) -> None:
        """A hard link appears whole or not at all, and only where nothing is. The fallback for filesystems
        without links is exclusive too, but a crash within it can leave a short file."""
        path, temporary = self._stage(key, data)
        try:
            os.link(temporary, path)
        except OSError as fault:
            if fault.errno == errno.EEXIST and not path.is_file():
                raise OSError(errno.EEXIST, "something that is no file is in its place; remove it") from fault
            if fault.errno not in NO_LINKS:
                raise
            with open(path, "xb") as file:
                write_durably(file, data)
        finally:
            os.unlink(temporary)
        sync_folder(path.parent)

    def get(self, key: str) -> bytes:
        """What is no regular file is not there: a pipe would be waited for, and /dev/zero has no end."""
        try:
            with open(self._path(key), "rb", opener=at_once) as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return file.read()
        except OSError as fault:
            if fault.errno not in (errno.EISDIR, errno.ENXIO):  # a folder, a socket
                raise
        raise FileNotFoundError(errno.ENOENT, "no regular file")

    def size(self, key: str) -> int | None:
        path = self._path(key)
        return path.stat().st_size if path.is_file() else None

    def list(self, prefix: str) -> Iterator[Entry]:
        folder = self._path(prefix) if prefix else Path(self.root)
        for where, folders, names in os.walk(folder, onerror=not_absent):
            folders[:] = [name for name in folders if not name.startswith(".") and name != LOST_AND_FOUND]
            for name in names:
                path = os.path.join(where, name)
                try:
                    found = os.stat(path)
                except OSError as fault:
                    if fault.errno not in NOWHERE:
                        raise
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield Entry(os.path.relpath(path, self.root).replace(os.sep, "/"), found.st_size)

    def leftovers(self, before: float) -> Iterator[Entry]:
        for entry in self.list(""):
            if UNFINISHED.fullmatch(entry.key.rpartition("/")[2]):
                try:
                    if self._path(entry.key).stat().st_mtime < before:
                        yield entry
                except FileNotFoundError:
                    continue  # moved into place meanwhile

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def sign(self, key: str, seconds: int) -> str:
        raise StoreError(f"{self.root}: a folder cannot sign links; accepted: s3://, gs://, az://")

    def passing(self, fault: Exception) -> bool:
        return isinstance(fault, OSError) and fault.errno in PASSING

    def of_machine(self, fault: Exception) -> bool:
        return isinstance(fault, OSError) and fault.errno in OF_MACHINE

    def explain(self, fault: Exception) -> str:
        words = fault.strerror if isinstance(fault, OSError) else None
        return advised(words or str(fault) or type(fault).__name__, fault)

    def _path(self, key: str) -> Path:
        return Path(self.root, key)

    def _stage(self, key: str, data: bytes) -> tuple[Path, Path]:
        """Write `data` durably beside the key's place, under a name that listings leave out."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}.part")
        with open(temporary, "xb") as file:
            try:
                write_durably(file, data)
            except OSError:
                os.unlink(temporary)  # a full disk must not keep what failed
                raise
        return path, temporary


def at_once(path: str, flags: int) -> int:
    """An opener that waits for nobody."""
    return os.open(path, flags | os.O_NONBLOCK)


def not_absent(fault: OSError) -> None:
    """A folder that is not there, or is a file, holds nothing; one that can't be read is an error."""
    if not isinstance(fault, (FileNotFoundError, NotADirectoryError)):
        raise fault


def write_durably(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the folder's entries survive a power cut: a marker must not outlive the media that it names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
