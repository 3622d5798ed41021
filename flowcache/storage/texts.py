"""Encoded texts carry their key and a hash of themselves: no marker names them, and a wrong one gives a wrong video
unseen."""

import json
import re

from flowcache.storage.documents import sha256

BLANK = "0" * 64  # in the place of the hash while the object is hashed
PLACE = re.compile(rb'"key":"([^"]*)"')
SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def seal(data: bytes) -> bytes:
    """`data`: safetensors whose metadata are {"key": where it will lie, "sha256": BLANK}."""
    return data.replace(BLANK.encode(), sha256(data).encode(), 1)


def fault_of(data: bytes, key: str) -> str | None:
    """What is wrong with the object; None where it is sound, or of a version that sealed none, or without the key."""
    start = 8  # bytes: the header's length, little-endian
    header = data[start : start + int.from_bytes(data[:start], "little")]
    found = SEAL.search(header)
    if found:
        begin, end = (start + place for place in found.span(1))
        right = sha256(data[:begin] + BLANK.encode() + data[end:])
        place = PLACE.search(header)
        if found[1].decode() != right:
            return "its sha256 is not its own"
        return None if place is None or place[1].decode() == key else "it is that of another text"
    try:
        return None if json.loads(header).keys() == {"words"} else "no encoded text"
    except (ValueError, AttributeError, RecursionError):
        return "no encoded text"
