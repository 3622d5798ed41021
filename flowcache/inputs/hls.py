"""A finished video as a run writes it: a playlist with an init segment and chunks beside it, read as one MP4."""

import posixpath
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from flowcache.errors import StoreError, UnreadableError
from flowcache.inputs.limits import BLOCK, check_size
from flowcache.inputs.parquet import repeated
from flowcache.inputs.urls import Access, OpenFile, opened, resolve, scheme_of
from flowcache.inputs.written import shown

SUFFIX = ".m3u8"
TEXT_LIMIT = 16 << 20  # bytes of a playlist
# A name alone: what lies elsewhere would be fetched from wherever a stranger's playlist says.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", re.ASCII)
INIT = re.compile(r'#EXT-X-MAP:URI="([^"]*)"')
TAGS = (
    *("#EXTM3U", "#EXT-X-VERSION", "#EXT-X-TARGETDURATION", "#EXT-X-MEDIA-SEQUENCE", "#EXT-X-PLAYLIST-TYPE"),
    *("#EXT-X-INDEPENDENT-SEGMENTS", "#EXT-X-MAP", "#EXTINF", "#EXT-X-ENDLIST"),
)
OURS = "accepted: the index.m3u8 that a run writes beside a video's chunks"
Seen = Callable[[str], object]


def is_playlist(url: str) -> bool:
    path = url if scheme_of(url) == "file" else url.partition("?")[0]
    return path.lower().endswith(SUFFIX)


@contextmanager
def whole(url: str, limit: int, access: Access | None = None, private: bool = False) -> Iterator[OpenFile]:
    """As `urls.opened`: the MP4 of all that the playlist names. UnreadableError also where the video is unfinished, or
    something of it is missing or lies elsewhere."""
    with tempfile.TemporaryFile() as file:
        collect(url, file, limit, access, private)
        file.seek(0)
        yield file  # pyright: ignore[reportReturnType]


def collect(
    url: str,
    file: IO[bytes],
    limit: int,
    access: Access | None = None,
    private: bool = False,
    seen: Seen = lambda part: None,
) -> None:
    """Write init segment and chunks to `file`, of at most `limit` bytes. seen: is told of each before it is opened."""
    with opened(url, TEXT_LIMIT, access, private) as playlist:
        names = named(playlist.read())
    size = 0
    for name in names:
        part = resolve(name, url)
        seen(part)
        try:
            with opened(part, limit, access, private) as found:
                if not found.peek(1):
                    raise UnreadableError("is empty")
                while block := found.read(BLOCK):
                    size += len(block)
                    check_size(size, limit)
                    file.write(block)
        except UnreadableError as error:
            raise UnreadableError(f"names {posixpath.basename(name)}, which {error}", error.slow, error.away) from error
        except StoreError as error:
            raise StoreError(f"{posixpath.basename(name)} {error}", error.passing, error.of_machine) from error


def named(playlist: bytes) -> list[str]:
    """The init segment and the chunks, in order. UnreadableError: it is no playlist of a finished video of a run."""
    lines = [line.strip() for line in playlist.decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines or lines[0].removeprefix("\ufeff") != "#EXTM3U":
        raise UnreadableError(f"is no playlist; {OURS}")
    inits, chunks = list[str](), list[str]()
    for line in lines[1:]:
        tag = line.partition(":")[0]
        if tag.startswith("#EXT") and tag not in TAGS:
            raise UnreadableError(f"holds {shown(tag)}, as no index.m3u8 of a run does; {OURS}")
        if tag == "#EXT-X-MAP":
            inits += [found[1]] if (found := INIT.fullmatch(line)) else [line]
        elif not line.startswith("#"):
            chunks.append(line)
    if strange := next((name for name in (*inits, *chunks) if not NAME.fullmatch(name) or ".." in name), None):
        raise UnreadableError(f"names {shown(strange)}, which is no file beside it; {OURS}")
    if twice := repeated(inits + chunks):
        raise UnreadableError(f"names {shown(twice)} twice; {OURS}")
    if "#EXT-X-ENDLIST" not in lines:
        raise UnreadableError("is the playlist of a video that is not finished; accepted: that of one that is")
    if len(inits) != 1 or not chunks:
        raise UnreadableError(f"names {len(inits)} init segments and {len(chunks)} chunks; {OURS}")
    return inits + chunks
