"""JSON files of a checkpoint, which may be anything that somebody put there. No torch."""

import json
from pathlib import Path
from typing import Any

from flowcache.models.formats import fault, opened

LIMIT = 100_000_000  # bytes; the index of a model with a million tensors has less


def read_object(file: Path, what: str = "JSON object") -> dict[str, Any]:
    """The object in a file. InputError for what is no regular file, too large, no JSON, nested deep or no object.

    what: the message calls it that it is none of.
    """
    try:
        with opened(file) as stream:
            data = stream.read(LIMIT + 1)
    except OSError as error:
        raise fault(file, f"can't be read: {error.strerror}") from None
    if len(data) > LIMIT:
        raise fault(file, f"is no {what}: it is larger than {LIMIT:,} bytes")
    try:
        found = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise fault(file, f"is no {what}: {error}") from None
    if not isinstance(found, dict):
        raise fault(file, f"is no {what}: got {type(found).__name__}; accepted: an object")
    return found


def check_regular(folder: Path) -> None:
    """InputError where a file of a folder is a pipe, a device or a socket, for packages that open what they find."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.exists() and not file.is_dir():
            opened(file).close()
