"""What a finishing function made of a video, as the store knows it: its commit names every file."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flowcache.errors import StoreError, masked
from flowcache.storage import layout
from flowcache.storage.documents import SCHEMA_VERSION, Damaged, canonical, parse
from flowcache.storage.objects.store import Store
from flowcache.storage.proven import read_proven
from flowcache.storage.typed import typed

Names = Mapping[str, Collection[str]]  # by video: the functions whose finish of it is committed


@dataclass(frozen=True)
class FinishedFile:
    name: str  # as the function wrote it, with / between folders
    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class FinishMarker:
    """The commit of one video's finish by one function: it exists, or nothing of that counts."""

    video_id: str
    finish: str  # module:function
    attempt: str
    run_id: str
    done_sha256: str  # of the DONE of the video that it was made of, hence of all its segments' markers
    files: tuple[FinishedFile, ...]
    host: str
    gang: str
    started: float  # unix seconds
    finished: float
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """JSON has the files as objects. TypeError where one is no file."""
        files = tuple(typed(FinishedFile(**one) if isinstance(one, dict) else one) for one in self.files)
        object.__setattr__(self, "files", files)


def to_bytes(marker: FinishMarker) -> bytes:
    return canonical(vars(marker))


def finish_at(key: str, data: bytes, name: str) -> FinishMarker:
    """Damaged where it is no finish of that place."""
    marker: FinishMarker = parse(FinishMarker, data, name)
    if layout.finish_key(marker.video_id, marker.finish) != key:
        raise Damaged(f"{name} is damaged: it is that of video {marker.video_id} by {marker.finish}")
    folder = layout.finished_key(marker.video_id, marker.finish, marker.attempt, "")
    if any(file.key != folder + file.name for file in marker.files):
        raise Damaged(f"{name} is damaged: it names files that lie elsewhere")
    return marker


def read_finishes(store: Store, names: Names) -> tuple[dict[str, tuple[FinishMarker, ...]], dict[str, StoreError]]:
    """By video, in the order of their functions; and by key what is wrong with those that can't be used."""
    keys = [layout.finish_key(video, one) for video in sorted(names) for one in sorted(names[video])]
    found: dict[str, tuple[FinishMarker, ...]] = {}
    faults: dict[str, StoreError] = {}
    for key, one in read_proven(store, keys, lambda key, data: finish_at(key, data, masked(store.uri(key)))):
        if isinstance(one, FinishMarker):
            found[one.video_id] = (*found.get(one.video_id, ()), one)
        else:
            faults[key] = one
    return found, faults
