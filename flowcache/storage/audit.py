"""The checks of `verify` that read single objects: hash, size, decoded frames and their times."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flowcache.errors import ObjectError, StoreError
from flowcache.records import ChunkRecord, Rate
from flowcache.storage.documents import SegmentMarker, sha256
from flowcache.storage.media import decode
from flowcache.storage.objects.store import MissingObject, Store
from flowcache.storage.proven import read_sound

ReadInit = Callable[[str], bytes | None]

TIME_TOLERANCE = 1e-3  # seconds; the container's clock ticks at least 10,000 times a second


@dataclass(frozen=True)
class Damage:
    """One thing that is not as the markers say."""

    message: str
    video_id: str | None = None
    segment: int | None = None
    chunk: int | None = None
    key: str | None = None
    unreadable: bool = False  # the store refuses the object, which may be sound

    def __str__(self) -> str:
        named = (("video", self.video_id), ("segment", self.segment), ("chunk", self.chunk))
        where = " ".join(f"{name} {value}" for name, value in named if value is not None)
        key = f" ({self.key})" if self.key and self.key not in self.message else ""
        return f"{where}: {self.message}{key}" if where else f"{self.message}{key}"


@dataclass
class Audit:
    """What was found so far."""

    problems: list[Damage] = field(default_factory=list)
    rows: int = 0  # of both tables

    def extend(self, problems: Iterable[Damage]) -> None:
        self.problems.extend(problems)


@dataclass(frozen=True)
class ObjectCheck:
    """One object that a marker or a finish names, and what it must be."""

    key: str
    sha256: str
    video_id: str
    segment: int | None
    bytes: int | None = None
    chunk: ChunkRecord | None = None  # of media, which are also decoded:
    init_key: str = ""
    init_sha256: str = ""
    fps: Rate = 1
    size: tuple[int, int] | None = None  # height, width in pixels

    def damage(self, message: str, unreadable: bool = False) -> Damage:
        chunk = self.chunk.chunk if self.chunk else None
        return Damage(message, self.video_id, self.segment, chunk, self.key, unreadable)


def objects_of(markers: Iterable[SegmentMarker], requests: dict[str, dict[str, Any]]) -> Iterator[ObjectCheck]:
    """Every object that the markers of one video name; the init segment once for each hash."""
    inits = set()
    for marker in markers:
        request = requests.get(marker.video_id)
        size = (request["height"], request["width"]) if request else None
        where = {"video_id": marker.video_id, "segment": marker.segment}
        if (marker.init_key, marker.init_sha256) not in inits:
            inits.add((marker.init_key, marker.init_sha256))
            yield ObjectCheck(marker.init_key, marker.init_sha256, **where)
        if marker.state_key is not None:
            yield ObjectCheck(marker.state_key, marker.state_sha256 or "", bytes=marker.state_bytes, **where)
        media = {
            "init_key": marker.init_key,
            "init_sha256": marker.init_sha256,
            "fps": marker.fps,
            "size": size,
            **where,
        }
        for chunk in marker.chunks:
            yield ObjectCheck(chunk.key, chunk.sha256, bytes=chunk.bytes, chunk=chunk, **media)


def as_marked(check: ObjectCheck, data: bytes) -> bytes:
    """The object's bytes; ObjectError where they are others."""
    if sha256(data) != check.sha256:
        raise ObjectError("is damaged: its sha256 is not the one in its marker")
    return data


def check_object(store: Store, check: ObjectCheck, sizes: dict[str, int], read_init: ReadInit | None) -> list[Damage]:
    """What is wrong with the object: missing, of another size or hash, or not the frames that it should be.

    `read_init` gives the init segment at a key; None: nothing is decoded.
    """
    if check.key not in sizes:
        return [check.damage("is missing")]
    if check.bytes is not None and sizes[check.key] != check.bytes:
        return [check.damage(f"has {sizes[check.key]} bytes, its marker says {check.bytes}")]
    try:
        data = read_sound(store, check.key, partial(as_marked, check))
    except MissingObject:
        return [check.damage("is missing")]
    except ObjectError as fault:
        return [check.damage(str(fault))]
    except StoreError as fault:
        if fault.passing:
            raise
        return [check.damage(str(fault), unreadable=True)]
    if check.chunk is None or read_init is None:
        return []
    init = read_init(check.init_key)
    if init is None or sha256(init) != check.init_sha256:
        return []  # reported already, and no fault of the chunk
    return list(check_frames(check, check.chunk, data, init))


def check_sound(
    store: Store, key: str, read: Callable[[bytes], object], missing: str | None, video_id: str | None = None
) -> Iterator[Damage]:
    """What is wrong with the object: `read` raises ObjectError, the store does not give it, or it is not there.

    missing: what is said of the last; None: it is no fault.
    """
    try:
        read_sound(store, key, read)
    except MissingObject:
        if missing:
            yield Damage(missing, video_id, key=key)
    except ObjectError as fault:
        yield Damage(str(fault), video_id, key=key)
    except StoreError as fault:
        yield Damage(str(fault), video_id, key=key, unreadable=True)


def check_frames(check: ObjectCheck, chunk: ChunkRecord, data: bytes, init: bytes) -> Iterator[Damage]:
    """Decode the chunk after its init segment; count its frames and compare their times."""
    count = 0
    try:
        for pixels, seconds in decode(init, [data]):
            wanted = float((chunk.start_frame + count) / check.fps)
            if abs(seconds - wanted) > TIME_TOLERANCE:
                yield check.damage(f"frame {count} is at {seconds:.4f} s, expected {wanted:.4f} s")
                return
            if check.size and pixels.shape[:2] != check.size:
                yield check.damage(f"is {pixels.shape[1]}x{pixels.shape[0]}, requested {check.size[1]}x{check.size[0]}")
                return
            count += 1
    except ObjectError as fault:
        yield check.damage(str(fault))
        return
    if count != chunk.frames:
        yield check.damage(f"decodes to {count} frames, its marker says {chunk.frames}")
