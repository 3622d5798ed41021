"""WebDataset: tar files of samples, read in sequence by many trainers (https://github.com/webdataset/webdataset)."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial

from flowcache.export.film import Film
from flowcache.export.plan import Plan, Read
from flowcache.export.target import File

SHARD = 256 * 2**20  # bytes of the videos in one tar, about


def webdataset(films: Sequence[Film], read: Read, limit: int = SHARD) -> Plan:
    """shard-000000.tar and so on. A sample is NUMBER.mp4, NUMBER.txt (its prompts) and NUMBER.json (all that is told):
    ids may hold dots, at which readers would cut them."""
    files, number = list[File](), 0
    for shard, part in enumerate(shards(films, limit)):
        told = hashlib.sha256(json.dumps([[film.source, film.told()] for film in part]).encode()).hexdigest()
        key = f"shard-{shard:06d}.tar"
        make, ids = partial(tar, part, number, read), tuple(film.id for film in part)
        files.append(File(key, f"from {number} {told}", make, ids))
        number += len(part)
    return Plan(files, [])


def shards(films: Sequence[Film], limit: int) -> Iterator[list[Film]]:
    """Consecutive films of at most so many bytes together; a larger one alone."""
    part, size = list[Film](), 0
    for film in films:
        if part and size + film.bytes > limit:
            yield part
            part, size = [], 0
        part.append(film)
        size += film.bytes
    yield part


def tar(films: Sequence[Film], first: int, read: Read) -> bytes:
    """The same films give the same bytes: no times, no owner."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, film in enumerate(films, first):
            for end, data in sample(film, read).items():
                member = tarfile.TarInfo(f"{number:08d}.{end}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def sample(film: Film, read: Read) -> dict[str, bytes]:
    told = json.dumps(film.told(), ensure_ascii=False)
    return {"json": told.encode(), "mp4": read(film), "txt": "\n".join(film.prompts).encode()}
