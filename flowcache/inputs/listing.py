"""Names of what lies in a folder or matches a pattern, here or at a URL: listed by a child process, and counted."""

import glob
import json
import os
import posixpath
import re
from collections.abc import Iterator

from flowcache.errors import UnreadableError
from flowcache.inputs.children import Children, Limits
from flowcache.inputs.sandbox import before_work
from flowcache.inputs.urls import WEB, Access, asking, filesystem_of, scheme_of

MOST = 100_000  # files of a folder
LIMITS = Limits(memory=1 << 30, cpu=120, wall=600)


def is_folder(name: str) -> bool:
    """Whether it is one; of URLs those that end so."""
    return name.endswith("/") if scheme_of(name) != "file" else os.path.isdir(local(name))


def is_pattern(name: str) -> bool:
    """Whether it stands for other names: no file here has it."""
    if scheme_of(name) != "file":
        return re.search(r"[*\[]", name.partition("?")[0]) is not None
    return glob.has_magic(name) and not os.path.lexists(local(name))


def local(name: str) -> str:
    """The path of what is no URL, or one of a file."""
    return os.path.expanduser(name.partition("://")[2] or name)


def inside(folder: str, children: Children, access: Access) -> list[str]:
    """Paths relative to the folder, sorted, of all files below it whose names, folders included, begin with a letter or
    digit: others are notes of programs. UnreadableError, StoreError."""
    return _asked(children, folder, access, True)


def matching(pattern: str, children: Children, access: Access) -> list[str]:
    """Names of the files and folders that match, sorted. UnreadableError, StoreError."""
    return _asked(children, pattern, access, False)


def _asked(children: Children, name: str, access: Access, folder: bool) -> list[str]:
    if scheme_of(name) in WEB:
        raise UnreadableError("lies at http, where nothing can be listed; accepted: the URLs of its files")
    if scheme_of(name) == "memory":  # of this process
        (answer,) = _listed(name, access, folder)
    else:
        with before_work(name, UnreadableError):
            (answer,) = children.ask(_listed, LIMITS, name, dict(access), folder)
    return json.loads(answer)


def _listed(name: str, access: Access, folder: bool) -> Iterator[bytes]:
    """In the child."""
    if scheme_of(name) == "file":
        found = sorted(_counted(_walked(local(name)) if folder else glob.iglob(local(name), recursive=True)))
    else:
        with asking():
            found = sorted(_counted(_at(name, access, folder)))
    yield json.dumps(found).encode(errors="backslashreplace")


def _at(url: str, access: Access, folder: bool) -> Iterator[str]:
    filesystem, path = filesystem_of(url, access)
    if folder:
        below = path.rstrip("/") + "/"
        yield from _plain(each.removeprefix(below) for each in filesystem.find(path))
    else:
        root = url.partition("://")[0] + "://"
        yield from (root + each.lstrip("/") for each in filesystem.glob(path))


def _counted(names: Iterator[str]) -> Iterator[str]:
    for number, name in enumerate(names):
        if number == MOST:
            raise UnreadableError(f"holds more than {MOST:,} files")
        yield name


def _walked(folder: str) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if each[0].isalnum()]
        place = os.path.relpath(root, folder).replace(os.sep, "/")
        yield from _plain(posixpath.normpath(f"{place}/{each}") for each in files)


def _plain(names: Iterator[str]) -> Iterator[str]:
    return (name for name in names if name and all(part[:1].isalnum() for part in name.split("/")))
