"""A file that is a whole GIF and a Python module at once: one that no look at the picture gives away."""

import random
from functools import cache

SIDE = 0x0101  # of the frame, and where it lies: a module holds no zero bytes
BITS = 7  # of a pixel: codes are below 128
TEXT = frozenset(range(1, 128)) - {0x0A, 0x0D}  # bytes that a comment may hold: ASCII, and no end of line


def polyglot(code: str) -> bytes:
    """To Python the line `GIF89a=1;#...`, which ends where the picture does, and `code`."""
    place = SIDE.to_bytes(2, "little") * 4
    return b"GIF89a=\t1\t;##," + place + bytes([1, BITS]) + _pixels() + b"\n" + code.encode()


@cache
def _pixels() -> bytes:
    """The frame's LZW codes, drawn anew where they would make a byte that is not in TEXT."""
    draw, data, held, have = random.Random(0), bytearray(), 0, 0
    for number in range(SIDE * SIDE):
        known = min((1 << BITS) + 1 + max(number, 1), 4095)  # the decoder's table grows by an entry a code
        width = known.bit_length()
        while True:
            value, bits = held | draw.randrange(1, 1 << BITS) << have, have + width
            whole, rest = value & (1 << bits // 8 * 8) - 1, value >> bits // 8 * 8
            ended = whole.to_bytes(bits // 8, "little")
            if TEXT.issuperset(ended) and (bits % 8 < 7 or rest in TEXT):  # of a byte's 8 bits the last one must be 0
                break
        data += ended
        held, have = rest, bits % 8
    data += b"##"
    return b"".join(bytes([len(block)]) + block for block in (data[i : i + 127] for i in range(0, len(data), 127)))
