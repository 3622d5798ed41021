"""Compressed manifests, unpacked block by block in a child process: few bytes may unpack to terabytes."""

import io
from collections.abc import Iterator

from flowcache.errors import UnreadableError
from flowcache.inputs.children import Children, Limits
from flowcache.inputs.limits import BLOCK

PACKED = {".gz": "gzip", ".zst": "zstd"}
LIMITS = Limits(memory=512 << 20, cpu=60, wall=300)  # of a block; a window of zstd may take 128 MiB


def unpacked(path: str, how: str, children: Children, limit: int) -> io.BufferedReader:
    """What the file unpacks to, which can only be read on. how: of PACKED; limit: bytes. Reading: UnreadableError."""
    return io.BufferedReader(_Blocks(children.ask(_read, LIMITS, path, how), limit), BLOCK)


class _Blocks(io.RawIOBase):
    """A stream of what comes piece by piece."""

    def __init__(self, blocks: Iterator[bytes], limit: int):
        self._blocks, self._limit, self._left, self._block = blocks, limit, limit, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not self._block:
            self._block = memoryview(next(self._blocks, b""))
            self._left -= len(self._block)
            if self._left < 0:
                raise UnreadableError(f"unpacks to more than {self._limit >> 20:,} MiB")
        count = min(len(buffer), len(self._block))
        buffer[:count] = self._block[:count]
        self._block = self._block[count:]
        return count


def _read(path: str, how: str) -> Iterator[bytes]:
    """In the child."""
    import pyarrow as pa

    try:
        with pa.input_stream(path, compression=how, buffer_size=BLOCK) as stream:
            while block := stream.read(BLOCK):
                yield block
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableError(f"is damaged: it does not unpack as {how}") from error
