"""JSON files of a checkpoint, which may be anything that somebody put there. No torch."""

import json
import os
from pathlib import Path
from typing import Any

from flowcache.models.formats import HEAD, Kind, fault, opened, recognise, said

LIMIT = 10_000_000  # bytes; the index of a model with 50,000 tensors has less
TOLD = (Kind.LFS, Kind.HTML, Kind.EMPTY, Kind.ZEROS, Kind.COMPRESSED)  # what says more than what a parser says of it


def read_object(file: Path, what: str = "JSON object", limit: int = LIMIT) -> dict[str, Any]:
    """The object in a file. InputError for what is no regular file, too large, no JSON, nested deep or no object.

    what: the message calls it that it is none of. limit: most bytes.
    """
    try:
        with opened(file) as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise fault(file, f"can't be read: {error.strerror}") from None
    if len(data) > limit:
        raise fault(file, f"is no {what}: it is larger than {limit:,} bytes")
    try:
        found = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        kind = recognise(data[:HEAD], len(data))
        other = said(kind, data[:HEAD], len(data), what) if kind in TOLD else f"is no {what}: {error}"
        raise fault(file, other) from None
    if not isinstance(found, dict):
        raise fault(file, f"is no {what}: got {type(found).__name__}; accepted: an object")
    return found


def check_files(folder: Path) -> None:
    """For packages that open what they find: InputError where a file of a folder is a pipe, a device or a socket, or
    one is empty, a pointer or a page in place of what it should be.
    """
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.exists() and not file.is_dir():
            with opened(file) as stream:
                head, size = stream.read(HEAD), os.fstat(stream.fileno()).st_size
            if (kind := recognise(head, size)) in TOLD and file.suffix == ".json":
                raise fault(file, said(kind, head, size, "JSON"))
