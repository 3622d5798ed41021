"""The header of a safetensors file, read with limits: what it holds, without its weights. No torch."""

import json
import os
from pathlib import Path
from typing import Any

from flowcache.models.formats import Kind, expect, fault, opened

LIMIT = 10_000_000  # bytes; published models have some 200 for each tensor, and 100 million take minutes and gigabytes


def read_header(file: Path) -> dict[str, dict[str, Any]]:
    """By tensor: `dtype` as safetensors names it, and `shape`. InputError for another file, or a cut one."""
    expect(file, (Kind.SAFETENSORS,), "safetensors")
    try:
        with opened(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")  # `expect` has seen that it is no more than the file
            if length > LIMIT:
                raise fault(file, f"has a header of {length:,} bytes; accepted: {LIMIT:,} at most")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        found = {name: {"dtype": v["dtype"], "shape": tuple(v["shape"])} for name, v in sorted(header.items())}
        needed = 8 + length + max((v["data_offsets"][1] for v in header.values()), default=0)
        if size < needed:
            message = f"is cut short: its header says {needed:,} bytes, the file has {size:,}; download it again"
            raise fault(file, message)
    except OSError as error:
        raise fault(file, f"can't be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise fault(file, f"is no safetensors file: its header is damaged ({type(error).__name__}: {error})") from None
    return found
