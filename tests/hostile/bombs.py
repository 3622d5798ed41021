"""Small files that take much to open, and files that would have others opened, made by code."""

import io
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

# Pictures


def scans_jpeg(path: Path, side: int = 8000, scans: int = 300) -> None:
    """A progressive JPEG whose last scan comes again and again."""
    data = io.BytesIO()
    Image.new("L", (side, side), 90).save(data, "JPEG", progressive=True)
    whole = data.getvalue()
    last = whole.rindex(b"\xff\xda")
    path.write_bytes(whole[:-2] + whole[last:-2] * scans + b"\xff\xd9")


def png_of(path: Path, width: int, height: int, *extra: tuple[bytes, bytes], bits: int = 1, colour: int = 0) -> None:
    """A PNG of zeros with chunks before its pixels. colour: PNG's type, 6: RGBA."""
    line = b"\0" * (1 + -(-width * bits * {0: 1, 6: 4}[colour] // 8))
    packer, packed = zlib.compressobj(9), []
    for start in range(0, height, 256):
        packed.append(packer.compress(line * min(256, height - start)))
    packed.append(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", b"".join(packed)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(map(_png_chunk, chunks)))


def _png_chunk(chunk: tuple[bytes, bytes]) -> bytes:
    name, data = chunk
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def text_png(path: Path) -> None:
    packed = zlib.compress(bytes(1 << 30), 9)
    png_of(path, 8, 8, *[(b"zTXt", b"a\0\0" + packed)] * 3, (b"iCCP", b"a\0\0" + packed))


def tags_tiff(path: Path) -> None:
    """Says of its tags that they hold gigabytes, and of its directory that it is its own next one."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
            (273, 4, 1 << 28, 8), (278, 4, 1, 8), (279, 4, 1 << 28, 8), (700, 1, (1 << 32) - 1, 8)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 8) + bytes(2000))


# Videos


def small_mp4() -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for grey in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * grey, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()


HOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts")


def rewritten(data: bytes, **bodies: bytes | None) -> bytes:
    """An MP4 with other bodies for some of its boxes, None: without them; its frames come first, where they stay."""
    found, at = b"", 0
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + size]
        if name in HOLDERS:
            body = rewritten(body, **bodies)
        body = bodies.get(name.decode("latin1"), body)
        found += b"" if body is None else struct.pack(">I4s", len(body) + 8, name) + body
        at += size
    return found


def samples_mp4(path: Path, samples: int, present: int = 0, delta: int = 1, base: int | None = None) -> None:
    """Says that it has so many frames of one byte; `present` of these bytes are there."""
    whole = small_mp4()
    if base is not None:  # ticks a second
        at = whole.index(b"mdhd") + 4 + 12
        whole = whole[:at] + struct.pack(">I", base) + whole[at + 4 :]
    start = whole.index(b"mdat") + 4
    tables = {
        "stsz": struct.pack(">III", 0, 1, samples),
        "stts": struct.pack(">IIIi", 0, 1, samples, delta),
        "stsc": struct.pack(">IIIII", 0, 1, 1, samples, 1),
        "stco": struct.pack(">III", 0, 1, start),
        "stss": None, "ctts": None, "edts": None,
    }  # fmt: skip
    path.write_bytes(rewritten(whole, **tables) + struct.pack(">I4s", present + 8, b"mdat") + b"\xb6" * present)


def edits_mp4(path: Path, edits: int = 500_000) -> None:
    """Plays its second again and again, backwards and from before its beginning."""
    some = struct.pack(">iiI", 2**31 - 1, -5, 0xFFFF0000) + struct.pack(">iiI", -7, 512, 1)
    path.write_bytes(rewritten(small_mp4(), elst=struct.pack(">II", 0, edits) + some * (edits // 2)))


def elsewhere_mp4(path: Path, url: str) -> None:
    """Its frames lie elsewhere, it says."""
    place = url.encode() + b"\0"
    entry = struct.pack(">I4sI", 12 + len(place), b"url ", 0) + place
    path.write_bytes(rewritten(small_mp4(), dref=struct.pack(">II", 0, 1) + entry))


def nested_mp4(path: Path, depth: int = 200_000) -> None:
    inner = b""
    sizes = [8 * (level + 1) for level in range(depth)]
    inner = b"".join(struct.pack(">I4s", size, b"moov") for size in reversed(sizes))
    path.write_bytes(struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 0, b"isom") + inner)


def endless_mkv(path: Path) -> None:
    """An EBML element of 2^56 - 2 bytes in another, and a name of half a gigabyte."""
    head = bytes.fromhex("1a45dfa3a342868101 42f7810142f2810442f38108".replace(" ", "")) + b"\x42\x82\x88matroska"
    head += bytes.fromhex("42878104428581024286810142868101")
    segment = b"\x18\x53\x80\x67\x01" + b"\xff" * 6 + b"\xfe"
    path.write_bytes(
        head + segment + b"\x15\x49\xa9\x66\x01\xff\xff\xff\xff\xff\xff\xfe\x4d\x80\x10\x20\x00\x00" + bytes(5000)
    )


# Tables


def wide_parquet(path: Path, rows: int = 4_000_000, text: int = 2000) -> None:
    """A text said once for millions of rows."""
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), ["x" * text])
    pq.write_table(pa.table({"prompt": column}), path, compression="zstd", store_schema=False)


def long_parquet(path: Path, size: int = 1 << 28, rows: int = 8) -> None:
    """Rows of a quarter of a gigabyte each, said once."""
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), ["x" * size])
    pq.write_table(pa.table({"prompt": column}), path, compression="zstd", store_schema=False)


def line_of(path: Path, begin: bytes, size: int, end: bytes = b"\n") -> None:
    """A file with a line of `size` bytes, of which none takes room on the disk."""
    with path.open("wb") as file:
        file.write(begin + b"x" * 5000)
        file.truncate(size)
        file.seek(size)
        file.write(end)
