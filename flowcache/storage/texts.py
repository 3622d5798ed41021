"""Encoded texts carry a hash of themselves: no marker names them, and a wrong one gives a wrong video unseen."""

import json
import re

from flowcache.storage.documents import sha256

BLANK = "0" * 64  # in the place of the hash while the object is hashed
SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def seal(data: bytes) -> bytes:
    """`data`: safetensors whose metadata are {"sha256": BLANK}."""
    return data.replace(BLANK.encode(), sha256(data).encode(), 1)


def fault_of(data: bytes) -> str | None:
    """What is wrong with the object; None where it is sound, or of a version that sealed none."""
    start = 8  # bytes: the header's length, little-endian
    header = data[start : start + int.from_bytes(data[:start], "little")]
    found = SEAL.search(header)
    if found:
        begin, end = (start + place for place in found.span(1))
        right = sha256(data[:begin] + BLANK.encode() + data[end:])
        return None if found[1].decode() == right else "its sha256 is not its own"
    try:
        return None if json.loads(header).keys() == {"words"} else "no encoded text"
    except (ValueError, AttributeError, RecursionError):
        return "no encoded text"
