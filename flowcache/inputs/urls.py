"""Opening what people name in manifests: local paths and fsspec URLs, with limits and clear causes."""

import os
import posixpath
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from typing import IO, Any

import fsspec
from fsspec.core import url_to_fs

from flowcache.errors import StoreError, UnreadableError, masked
from flowcache.inputs.limits import BLOCK, check_size
from flowcache.inputs.unreached import unreached

FETCH_SECONDS = 600.0  # for one object
FIRST_SECONDS = 30.0  # for the first answer about it, all tries included
WEB = ("http", "https")
MISSING = "does not exist"
NO_OBJECT = ("", "NoSuchKey", "BlobNotFound")  # without a code: s3fs has listed what is there, and it is not
NO_ANSWER = re.compile("Connect|Timeout|Payload|Incomplete")  # in the names of what clients raise then
# Seconds, and tries of the client below; s3fs tries again what it failed at.
S3 = {"config_kwargs": {"connect_timeout": 10, "read_timeout": 30, "retries": {"total_max_attempts": 2}}}

OpenFile = BufferedReader
Access = Mapping[str, Any]  # what s3:// URLs are opened with: endpoint_url, key, secret ...


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
def opened(url: str, limit: int, access: Access | None = None, private: bool = False) -> Iterator[OpenFile]:
    """The object as a local file, open at its start. UnreadableError: absent, no file, over `limit` bytes; StoreError,
    which does not name it: what holds it refuses it, or does not answer.

    private: of http:// and https://, also what lies at addresses that are not public.
    """
    if scheme_of(url) == "file":
        with _local(os.path.expanduser(url.partition("://")[2] or url), limit) as file:
            yield file
        return
    with tempfile.NamedTemporaryFile(delete=False) as copy, open(copy.name, "rb") as file:
        os.unlink(copy.name)  # already now: a process that is killed at a limit can't, and would fill the disk
        download(url, copy, limit, access, private)
        copy.flush()
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
        check_size(found.st_size, limit)
        yield file


def download(url: str, file: IO[bytes], limit: int, access: Access | None = None, private: bool = False) -> None:
    """Write what lies at a URL to `file`; as `opened`."""
    scheme = scheme_of(url)
    if scheme in WEB:
        from flowcache.inputs.web import fetch  # a tenth of a second of imports

        return fetch(url, file, limit, private, FETCH_SECONDS)
    with asking():
        filesystem, path = filesystem_of(url, access)
        _copy(filesystem, path, file, limit)


@contextmanager
def asking() -> Iterator[None]:
    """Around calls of fsspec's filesystems, which pass on what the client libraries below them raise: UnreadableError,
    StoreError."""
    try:
        yield
    except (UnreadableError, StoreError):
        raise
    except Exception as fault:
        raise refusal(fault) from fault


def filesystem_of(url: str, access: Access | None = None) -> tuple[Any, str]:
    """fsspec's, and the path there. UnreadableError, StoreError."""
    scheme = scheme_of(url)
    if scheme not in fsspec.available_protocols() and "::" not in url:
        raise UnreadableError(f"has the unknown scheme {scheme!r}")
    try:
        return url_to_fs(url, **(S3 | dict(access or {}) if scheme in ("s3", "s3a") else {}))
    except Exception as fault:  # a package or credentials that are not there
        raise StoreError(cause(fault), of_machine=True) from fault


def refusal(fault: Exception) -> UnreadableError | StoreError:
    """What came of asking a store for an object: its own fault, unless it says that there is no such object."""
    (status, code), said = answer_of(fault), cause(fault)
    credentials = "Credential" in type(fault).__name__
    if not status and not credentials and (found := unreached(fault)):
        # Passing in any case, since whoever named the object is not at fault.
        return StoreError(f"cannot be read: {found.why}", passing=True, of_machine=found.of_machine)
    if said == MISSING:
        return UnreadableError(said) if code in NO_OBJECT else StoreError(f"cannot be read ({code})", of_machine=True)
    of_machine = isinstance(fault, PermissionError) or credentials
    broken = isinstance(fault, OSError) or NO_ANSWER.search(type(fault).__name__)
    passing = status >= 500 or status in (408, 429) if status else bool(broken) and not of_machine
    return StoreError(said, passing, of_machine)


def answer_of(fault: BaseException | None) -> tuple[int, str]:
    """The status and the code of a server's answer, as S3's and Azure's clients keep it; 0 and "" where none came."""
    while fault is not None:
        answer = getattr(fault, "response", None)
        if isinstance(answer, dict):
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return status, str(answer.get("Error", {}).get("Code", ""))
        if isinstance(status := getattr(fault, "status_code", None), int):
            return status, str(getattr(fault, "error_code", "") or "")
        fault = fault.__cause__ or fault.__context__
    return 0, ""


def _copy(filesystem: Any, path: str, file: IO[bytes], limit: int) -> None:
    found = filesystem.info(path, **({"timeout": FIRST_SECONDS} if filesystem.async_impl else {}))
    if found.get("type") == "directory":
        raise UnreadableError("is a folder, not a file")
    check_size(found.get("size") or 0, limit)
    size, begun = 0, time.monotonic()
    with filesystem.open(path, "rb", block_size=4 * BLOCK) as remote:
        while block := remote.read(BLOCK):
            size += len(block)
            check_size(size, limit)
            if time.monotonic() - begun > FETCH_SECONDS:
                raise StoreError(f"takes longer than {FETCH_SECONDS:.0f} s to fetch", passing=True)
            file.write(block)
    if size < (found.get("size") or 0):
        raise StoreError("cannot be read (what comes breaks off)", passing=True)


def cause(fault: Exception) -> str:
    """An exception as a person would say it, without credentials."""
    below = fault.__cause__
    if isinstance(fault, FileNotFoundError):  # fsspec says so of unreachable web servers too
        unreachable = isinstance(below, OSError) and not isinstance(below, FileNotFoundError)
        return "cannot be reached" if unreachable else MISSING
    if isinstance(fault, PermissionError):
        return "cannot be read (access denied)"
    if isinstance(fault, TimeoutError):
        return "cannot be read (the server does not answer in time)"
    if isinstance(fault, OSError) and fault.strerror:
        return f"cannot be read ({fault.strerror.lower()})"
    first = (str(fault).strip().splitlines() or [""])[0]
    return f"cannot be read ({type(fault).__name__}: {masked(first)[:200]})"
