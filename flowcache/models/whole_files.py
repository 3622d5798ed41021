"""Files that are there whole or not at all, also where several write the same one. No torch."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from flowcache.errors import FlowcacheError


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A new file beside `file`, to be written, which then takes its place. FlowcacheError as of `writing`."""
    part = file.with_name(f".{file.name}.{secrets.token_hex(8)}.part")
    with writing(file):
        try:
            yield part
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses, such as on a full disk, is a FlowcacheError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        goes_on = "what was written before stays, and the same command goes on from there"
        raise FlowcacheError(f"{path} can't be written ({why}); {goes_on}") from error
