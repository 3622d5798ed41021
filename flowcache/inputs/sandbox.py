"""Pictures, videos and tables of strangers, fetched and parsed in child processes with limits."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from flowcache.errors import MediaError, StoreError, UnreadableError, masked
from flowcache.inputs import media
from flowcache.inputs.children import Children, Limits
from flowcache.inputs.hls import collect, is_playlist
from flowcache.inputs.urls import FETCH_SECONDS, Access, OpenFile, download, opened, resolve, scheme_of
from flowcache.records import MediaInfo, Rate

MEMORY = 3 << 29  # bytes: a WebP picture of 64 million pixels takes 1.2 GB, a video of 8K 0.9 GB
LIMITS = {"image": Limits(MEMORY, cpu=15, wall=300), "video": Limits(MEMORY, cpu=120, wall=1200)}
FETCH = Limits(1 << 30, cpu=300, wall=int(FETCH_SECONDS) + 60)  # of a manifest
AT_ONCE = min(8, 2 * (os.cpu_count() or 4))
PATIENCE = 3  # times in a row that a host may be too slow before the rest of it is not tried any more


class Sandbox(Children):
    """Open what people name, `with` it. `access`: what s3:// URLs are opened with; `private`: http:// may lead to any
    address. MediaError says what is wrong, a limit that was reached included; StoreError, that a store refuses it.
    """

    def __init__(self, access: Access | None = None, private: bool = False, most: int = AT_ONCE):
        super().__init__(most)
        self.access, self.private, self._slow = dict(access or {}), private, Counter[str]()

    def probe(self, url: str, kind: str, base: str) -> MediaInfo:
        """See `media.probe_media`."""
        absolute = resolve(url, base)
        with before_work(absolute, MediaError):
            (answer,) = self._media(_probed, kind, absolute, {"kind": kind, "base": ""})
        return replace(MediaInfo(**json.loads(answer)), url=absolute)

    def image(self, url: str, width: int, height: int, **how: Any) -> np.ndarray:
        """See `media.load_image`."""
        (answer,) = self._media(_image, "image", url, {"width": width, "height": height, **how})
        return np.frombuffer(answer, np.uint8).reshape(1, height, width, 3)

    def clip(self, url: str, frames: int, fps: Rate, width: int, height: int, **how: Any) -> np.ndarray:
        """See `media.load_clip`."""
        asked = {"frames": frames, "fps": fps, "width": width, "height": height, **how}
        found = [np.frombuffer(frame, np.uint8) for frame in self._media(_clip, "video", url, asked)]
        return np.stack([frame.reshape(height, width, 3) for frame in found])

    @contextmanager
    def opened(self, url: str, limit: int) -> Iterator[OpenFile]:
        """A file of at most `limit` bytes, open at its start, its `name` its path; a manifest may lie anywhere."""
        if scheme_of(url) in ("file", "memory"):
            with opened(url, limit) as file:
                yield file
            return
        with tempfile.NamedTemporaryFile() as copy:
            with before_work(url, UnreadableError):
                for _ in self.ask(_downloaded, FETCH, url, copy.name, limit, self.access):
                    pass
            with open(copy.name, "rb") as file:
                yield file

    def _media(self, function: Any, kind: str, url: str, asked: dict[str, Any]) -> Iterator[bytes]:
        host = url.partition("://")[2].partition("/")[0]
        if host and self._slow[host] >= PATIENCE:
            raise MediaError(f"is not fetched: its host was too slow {PATIENCE} times in a row")
        limits = LIMITS[kind]
        if host:
            limits = replace(limits, wall=limits.wall + int(FETCH_SECONDS))
        try:
            with _within_reach(url) as place:
                yield from self.ask(function, limits, place, asked | {"access": self.access, "private": self.private})
            self._slow[host] = 0
        except UnreadableError as error:
            self._slow[host] += error.slow
            raise MediaError(str(error), error.away) from error


@contextmanager
def before_work(url: str, refused: type[MediaError | UnreadableError]) -> Iterator[None]:
    """What a store refuses while a run is planned is the fault of who named it; that it does not answer is nobody's."""
    try:
        yield
    except StoreError as error:
        if error.passing:
            raise StoreError(f"{masked(url)}: {error}; nothing was begun", passing=True) from error
        raise refused(str(error)) from error


@contextmanager
def _within_reach(url: str) -> Iterator[str]:
    """A URL that another process can open: what lies in the memory of this one is copied to a file."""
    if scheme_of(url) != "memory":
        yield url
        return
    with tempfile.NamedTemporaryFile() as file:
        (collect if is_playlist(url) else download)(url, file, media.BYTE_LIMIT)
        file.flush()
        yield file.name


def _downloaded(url: str, path: str, limit: int, access: Access) -> Iterator[bytes]:
    with open(path, "wb") as file:
        download(url, file, limit, access, private=True)
    yield b""


def _probed(url: str, asked: dict[str, Any]) -> Iterator[bytes]:
    yield json.dumps(asdict(media.probe_media(url, **asked))).encode()


def _image(url: str, asked: dict[str, Any]) -> Iterator[bytes]:
    yield media.load_image(url, **asked).tobytes()


def _clip(url: str, asked: dict[str, Any]) -> Iterator[bytes]:
    for frame in media.clip_frames(url, **asked):
        yield frame.tobytes()
