"""What is named as a manifest: one file, several, a pattern, a folder or standard input. Each file by itself."""

import posixpath
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import unquote

from flowcache.errors import UnreadableError
from flowcache.inputs.limits import BLOCK, check_size
from flowcache.inputs.listing import inside, is_folder, is_pattern, matching
from flowcache.inputs.sandbox import Sandbox
from flowcache.inputs.unpacked import PACKED
from flowcache.inputs.urls import scheme_of

STDIN = "-"
FILE_LIMIT = 2 << 30  # bytes
KINDS = {
    **{".jsonl": "JSON Lines", ".ndjson": "JSON Lines", ".csv": "CSV", ".txt": "text"},
    **{".parquet": "Parquet", ".arrow": "Arrow"},
}
ENDINGS = "accepted: .jsonl, .ndjson, .csv or .txt (also with .gz or .zst after it), .parquet or .arrow"
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # of a folder of pictures or videos
MEDIA = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"), "image"),
    **dict.fromkeys((".mp4", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".ogv"), "video"),
}
EMPTY = "__HIVE_DEFAULT_PARTITION__"  # what stands in a folder's name for no value


@dataclass(frozen=True)
class Source:
    """A file of rows: its URL, what its ending says that it is ("": nothing known), how it is packed ("": not), and
    what the names of its folders say, such as team=a. pictures: of a folder, which are its rows then."""

    url: str
    kind: str
    packed: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[tuple[str, str]] = ()  # (picture, caption's file or "") beside `url`, a folder


@dataclass(frozen=True)
class Manifests:
    """Several, as a command line names them."""

    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """How problems name them together."""
        return self.names[0] if len(self.names) == 1 else f"{self.names[0]} and {len(self.names) - 1:,} more"


def ending(name: str) -> tuple[str, str, str]:
    """(ending as written, what it says of the content, of the packing): (".csv.gz", "CSV", "gzip")."""
    path = name.partition("?")[0] if scheme_of(name) != "file" else name
    stem, dot, last = posixpath.basename(path.lower()).rpartition(".")
    last = dot + last if dot else ""
    if last in PACKED:
        inner = "." + stem.rpartition(".")[2]
        kind = KINDS.get(inner, "")
        return inner + last, kind if kind not in ("Parquet", "Arrow") else "", PACKED[last]
    return last, KINDS.get(last, ""), ""


def sources(names: Sequence[str], sandbox: Sandbox, faulty: Callable[[str, str], None]) -> Iterator[Source]:
    """Every file that is meant, one by one. faulty: is told (name, what is wrong with it)."""
    for name in names:
        try:
            yield from _meant(name, sandbox)
        except UnreadableError as error:
            faulty(name, str(error))


def _meant(name: str, sandbox: Sandbox) -> Iterator[Source]:
    if is_pattern(name):
        found = matching(name, sandbox, sandbox.access)
        if not found:
            raise UnreadableError("matches no file")
        for each in found:
            yield from _folder(each, sandbox) if is_folder(each) else [_file(each)]
    elif is_folder(name):
        yield from _folder(name, sandbox)
    else:
        yield Source(name, "") if name == STDIN else _file(name)


def _file(url: str, columns: Mapping[str, str] | None = None) -> Source:
    _, kind, packed = ending(url)
    return Source(url, kind, packed, columns or {})


def _folder(folder: str, sandbox: Sandbox) -> Iterator[Source]:
    """Its tables, or else its pictures."""
    files = inside(folder, sandbox, sandbox.access)
    root = folder.rstrip("/")
    tables = [name for name in files if posixpath.basename(name) in METADATA] or [
        name for name in files if ending(name)[1] not in ("", "text") and not _of_cache(name)
    ]
    kinds = sorted({ending(name)[1] for name in tables})
    if len(kinds) > 1:
        raise UnreadableError(f"is a folder that holds {' and '.join(kinds)}; accepted: one of them, or a pattern")
    if tables:
        yield from (_file(f"{root}/{name}", _columns(name)) for name in tables)
        return
    pictures = [name for name in files if posixpath.splitext(name.lower())[1] in MEDIA]
    if not pictures:
        raise UnreadableError("is a folder without a table, a picture or a video in it")
    texts = {posixpath.splitext(name)[0]: name for name in files if name.endswith(".txt")}
    yield Source(root, "pictures", pictures=[(name, texts.get(posixpath.splitext(name)[0], "")) for name in pictures])


def _of_cache(name: str) -> bool:
    """What the datasets library computed, beside the dataset itself."""
    return name.endswith(".arrow") and posixpath.basename(name).startswith("cache-")


def _columns(name: str) -> dict[str, str]:
    """What the folders on the way say, as Hive and Spark write it."""
    pairs = (part.partition("=") for part in name.split("/")[:-1] if "=" in part)
    return {unquote(key): unquote(value) for key, _, value in pairs if value != EMPTY}


@cache
def standard_input() -> Any:
    """A file with all of it, to be read again and again. UnreadableError."""
    file, size = tempfile.NamedTemporaryFile(), 0
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None or stream.isatty():
        raise UnreadableError("is standard input, and nothing comes from there; accepted: rows through a pipe")
    while block := stream.read(BLOCK):
        size += len(block)
        check_size(size, FILE_LIMIT)
        file.write(block)
    file.flush()
    return file
