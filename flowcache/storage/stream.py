"""What a player asks of a stream before it loads any of it, as the stream's init segment says it."""

from flowcache.errors import ObjectError
from flowcache.storage.media import boxes

TRACK = ("moov", "trak", "mdia", "minf", "stbl", "stsd")  # boxes, each in the one before
SIZE_AT, CHILDREN_AT = 32, 86  # bytes into a visual sample entry: width and height, its own boxes
DESCRIBES = "avcC"  # the decoder's configuration of H.264, which is all that `media` makes


def stream_of(init: bytes) -> dict[str, str]:
    """{"codecs": as RFC 6381 writes them, "resolution": "WIDTHxHEIGHT" in pixels}; ObjectError where the init segment
    has no H.264 track."""
    data = init
    for kind in TRACK:
        data = child(data, kind)
    entry = data[8:]  # after version, flags and the number of entries
    if entry[4:8] != b"avc1":
        raise ObjectError(f"the init segment's track is {entry[4:8]!r}; accepted: avc1, which is H.264")
    profile = child(entry[CHILDREN_AT:], DESCRIBES)[1:4]
    if len(profile) < 3:
        raise ObjectError(f"the init segment's {DESCRIBES} ends too early")
    width, height = (int.from_bytes(entry[at : at + 2], "big") for at in (SIZE_AT, SIZE_AT + 2))
    return {"codecs": f"avc1.{profile.hex()}", "resolution": f"{width}x{height}"}


def child(data: bytes, kind: str) -> bytes:
    """What is in the first box of this kind."""
    found = next((box for name, box in boxes(data) if name == kind), None)
    if found is None:
        raise ObjectError(f"the init segment has no box {kind}")
    return found[16 if found[:4] == b"\0\0\0\1" else 8 :]
