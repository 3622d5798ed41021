"""The signed sidecars of a root: written by `flowcache sign`, checked by `flowcache verify`."""

from collections.abc import Iterator
from importlib.util import find_spec

from flowcache.errors import ObjectError, StoreError
from flowcache.storage import layout
from flowcache.storage.audit import Damage
from flowcache.storage.commits import Commits
from flowcache.storage.joined import joined
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store
from flowcache.storage.proven import read_sound
from flowcache.storage.provenance import fault_of


def signatures(store: Store) -> list[str]:
    """The videos that have one."""
    return [one.video_id for one in listed(store, layout.MEDIA, "signature")]


def can_check() -> bool:
    return find_spec("c2pa") is not None


def check_signatures(store: Store, commits: Commits, anchors: bytes | None = None) -> Iterator[Damage]:
    """Those that do not hold for what is committed now. What else is damaged of a video is told by others."""
    for video_id in signatures(store) if can_check() else ():
        key, markers = layout.signature_key(video_id), commits.markers.get(video_id)
        if not markers:
            yield Damage("is signed, and nothing of it is committed", video_id, key=key)
            continue
        try:
            mp4 = joined(store, markers)
        except StoreError:
            continue

        def read(data: bytes, mp4: bytes = mp4) -> None:
            if why := fault_of(mp4, data, anchors):
                raise ObjectError(f"its signature does not hold ({why})")

        try:
            read_sound(store, key, read)
        except ObjectError as fault:
            yield Damage(str(fault), video_id, key=key)
