"""Opening what people name in manifests: local paths and fsspec URLs, with limits and clear causes."""

import os
import posixpath
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedRandom, BufferedReader
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from flowcache.errors import FlowcacheError, masked

BLOCK = 1 << 20  # bytes
FETCH_SECONDS = 600.0  # for one object: a server that sends a byte now and then must not hold up everybody

OpenFile = BufferedReader | BufferedRandom
Access = Mapping[str, Any]  # what s3:// URLs are opened with: endpoint_url, key, secret ...


class UnreadableError(FlowcacheError):
    """Something cannot be opened or fetched; the message says what is wrong with it, without its URL."""


def scheme_of(url: str) -> str:
    """The URL's scheme, "file" for plain paths."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator else "file"


def resolve(url: str, base: str) -> str:
    """`url` as an absolute path or URL; a relative path lies beside the file `base` ("": in the current directory)."""
    if "://" in url:
        return os.path.abspath(url.partition("://")[2]) if scheme_of(url) == "file" else url
    if os.path.isabs(os.path.expanduser(url)):
        return os.path.expanduser(url)
    if scheme_of(base) == "file":
        folder = os.path.dirname(os.path.abspath(base.partition("://")[2] or base or "requests"))
        return os.path.normpath(os.path.join(folder, url))
    scheme, _, rest = base.partition("?")[0].partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(rest), url))}"


@contextmanager
def opened(url: str, limit: int, access: Access | None = None) -> Iterator[OpenFile]:
    """The object as a local file, open at its start. UnreadableError: absent, no file, over `limit` bytes."""
    if scheme_of(url) == "file":
        with _local(os.path.expanduser(url.partition("://")[2] or url), limit) as file:
            yield file
        return
    with tempfile.TemporaryFile() as file:
        _download(url, file, limit, access or {})
        file.seek(0)
        yield file


@contextmanager
def _local(path: str, limit: int) -> Iterator[OpenFile]:
    try:
        found = os.stat(path)  # before opening: opening a pipe would wait for its writer
        if stat.S_ISDIR(found.st_mode):
            raise UnreadableError("is a folder, not a file")
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableError("is no regular file")
        file = open(path, "rb")  # noqa: SIM115 (closed below; faults while reading are the caller's)
    except (OSError, ValueError) as fault:
        raise UnreadableError(cause(fault)) from fault
    with file:
        _check_size(found.st_size, limit)
        yield file


def _download(url: str, file: OpenFile, limit: int, access: Access) -> None:
    scheme = scheme_of(url)
    if scheme not in fsspec.available_protocols() and "::" not in url:
        raise UnreadableError(f"has the unknown scheme {scheme!r}")
    try:
        filesystem, path = url_to_fs(url, **(access if scheme in ("s3", "s3a") else {}))
        found = filesystem.info(path)
        if found.get("type") == "directory":
            raise UnreadableError("is a folder, not a file")
        _check_size(found.get("size") or 0, limit)
        size, begun = 0, time.monotonic()
        with filesystem.open(path, "rb", block_size=4 * BLOCK) as remote:
            while block := remote.read(BLOCK):
                size += len(block)
                _check_size(size, limit)
                if time.monotonic() - begun > FETCH_SECONDS:
                    raise UnreadableError(f"takes longer than {FETCH_SECONDS:.0f} s to fetch")
                file.write(block)
    except UnreadableError:
        raise
    except Exception as fault:  # fsspec's filesystems pass on what the client libraries below them raise
        raise UnreadableError(cause(fault)) from fault


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise UnreadableError(f"is larger than {limit >> 20:,} MiB")


def cause(fault: Exception) -> str:
    """An exception as a person would say it, without credentials."""
    below = fault.__cause__
    if isinstance(fault, FileNotFoundError):  # fsspec says so of unreachable web servers too
        unreachable = isinstance(below, OSError) and not isinstance(below, FileNotFoundError)
        return "cannot be reached" if unreachable else "does not exist"
    if isinstance(fault, PermissionError):
        return "cannot be read (access denied)"
    if isinstance(fault, TimeoutError):
        return "cannot be read (the server does not answer in time)"
    if isinstance(fault, OSError) and fault.strerror:
        return f"cannot be read ({fault.strerror.lower()})"
    first = (str(fault).strip().splitlines() or [""])[0]
    return f"cannot be read ({type(fault).__name__}: {masked(first)[:200]})"
