"""One MP4 for each video, and pictures beside it on request."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from PIL import Image

from flowcache.errors import InputError, Problem
from flowcache.export.film import Film
from flowcache.export.plan import Plan, Read
from flowcache.export.target import File
from flowcache.report.frames import spread_frames, strip
from flowcache.storage.committed import chunks_of, list_commits
from flowcache.storage.finish_marker import read_finishes
from flowcache.storage.joined import read_marked
from flowcache.storage.layout import in_keys
from flowcache.storage.objects.store import Store

HEIGHT, GAP = 160, 4  # pixels of a contact sheet's frames, and between them
FRAMES = 10  # of a contact sheet
Picture = Callable[[Film], bytes]


@dataclass(frozen=True)
class Finished:
    """A file of a finish, and what it is called where its first name is another file's, too."""

    file: File
    folder: str  # of the video and the function
    name: str  # as the function wrote it

    @property
    def in_folder(self) -> File:
        return replace(self.file, key=f"{self.folder}/{self.name}")


def mp4(
    films: Sequence[Film], read: Read, pictures: dict[str, Picture] | None = None, others: Sequence[Finished] = ()
) -> Plan:
    """ID.mp4; pictures: what else lies beside it, by the end of its name; others: what finishes made. InputError where
    two of them would have one name."""
    ends = {".mp4": read} | (pictures or {})
    files = [
        File(f"{film.id}{end}", f"{end} {film.source}", partial(make, film))
        for film in films
        for end, make in ends.items()
    ]
    names = Counter(file.key.lower() for file in (*files, *(one.file for one in others)))
    files += [one.file if names[one.file.key.lower()] == 1 else one.in_folder for one in others]
    names = Counter(file.key.lower() for file in files)
    if twice := next((file.key for file in files if names[file.key.lower()] > 1), None):
        why = f"two files would be named {twice}; accepted: the videos one after the other, each --to a folder"
        raise InputError([Problem("export", "", why)])
    return Plan(files, [], whole=False)


def finished(store: Store, films: Sequence[Film]) -> list[Finished]:
    """ID-FILE for each file that a finishing function made of them; StoreError where a commit can't be read."""
    names = list_commits(store).finished
    found, faults = read_finishes(store, {film.id: names[film.id] for film in films if film.id in names})
    for fault in faults.values():
        raise fault
    return [
        Finished(
            File(
                f"{video}-{file.name.replace('/', '-')}",
                file.sha256,
                partial(read_marked, store, file.key, file.sha256),
            ),
            f"{video}-{in_keys(one.finish)}",
            file.name,
        )
        for video, finishes in found.items()
        for one in finishes
        for file in one.files
    ]


def thumbnail(store: Store, film: Film) -> bytes:
    """JPEG of the frame in the middle, as large as the video."""
    frames = spread_frames(store, film.id, chunks_of(film.markers), 3)
    return jpeg(Image.fromarray(frames[len(frames) // 2]))


def contact_sheet(store: Store, film: Film) -> bytes:
    """JPEG of ten frames side by side."""
    return jpeg(strip(spread_frames(store, film.id, chunks_of(film.markers), FRAMES), HEIGHT, GAP))


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
