"""Files and folders that an option names to be written: what is wrong with one is said before anything is done."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowcache.errors import InputError, Problem

FILE, FOLDER = "the path of a file in a folder that exists", "a folder or URL such as s3://bucket/prefix"
HERE = "a folder on this machine"
OUTSIDE = "a folder outside of the checkpoint"


def home(path: Path) -> Path:
    """With `~` as the home folder, which shells leave in `--to=~/page.html`."""
    return Path(os.path.expanduser(path))


def check_file(path: Path) -> None:
    """InputError where `path` can't be written as a file: its folder is missing, it is one itself, or rights lack."""
    with refusing(path, FILE):
        if path.is_dir():
            raise refusal(path, "is a folder", FILE)
        folder = path.absolute().parent
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "does not exist"
            raise refusal(path, f"lies in {folder}, which {what}", FILE)
        if not os.access(path if path.exists() else folder, os.W_OK):
            raise refusal(path, "can't be written (permission denied)", FILE)


def check_folder(path: Path, name: str = "--to", accepted: str = FOLDER) -> None:
    """InputError where files can't be written to the folder `path`, which need not be there yet. name: the option's."""
    with refusing(path, accepted, name):
        nearest = next(each for each in (path, *path.absolute().parents) if each.exists() or each.is_symlink())
        if not nearest.is_dir():
            why = "is a file" if nearest == path else f"lies in {nearest}, which is no folder"
            raise refusal(path, why, accepted, name)
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise refusal(path, f"can't be written (no right to write to {nearest})", accepted, name)


def check_here(path: Path, name: str) -> None:
    """As check_folder, of an option that takes no URL: `Path` makes of s3://bucket the folder s3:/bucket."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise refusal(path, "is a URL", HERE, name)
    check_folder(path, name, HERE)


def check_outside(path: Path, checkpoint: str, name: str) -> None:
    """InputError where the folder lies within a checkpoint's, by all of whose files that is known: with what is
    written there it is another one."""
    with refusing(path, OUTSIDE, name):
        if path.resolve().is_relative_to(Path(checkpoint).resolve()):
            raise refusal(path, f"lies within the checkpoint {checkpoint}, which would be another one", OUTSIDE, name)


def make_here(path: Path, name: str) -> None:
    """The folder, after `check_here`. InputError where that can't see what is wrong with it."""
    with refusing(path, HERE, name):
        path.mkdir(parents=True, exist_ok=True)


def write(path: Path, data: bytes) -> None:
    """InputError where that fails."""
    with refusing(path, FILE):
        path.write_bytes(data)


@contextmanager
def refusing(path: Path, accepted: str, name: str = "--to") -> Iterator[None]:
    """What the system refuses is an InputError."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: names that no system takes
        said = (getattr(error, "strerror", None) or str(error)).lower()
        raise refusal(path, f"can't be written ({said})", accepted, name) from error


def refusal(path: Path, why: str, accepted: str, name: str = "--to") -> InputError:
    return InputError([Problem(name, "", f"{str(path)!r} {why}; accepted: {accepted}")])
