"""A video as one plain MP4, made from its committed chunks without encoding again."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from flowcache.errors import masked
from flowcache.storage.committed import CURE, chunks_of, playable
from flowcache.storage.documents import Damaged, SegmentMarker, sha256
from flowcache.storage.media import join
from flowcache.storage.objects.store import Store
from flowcache.storage.proven import read_sound

READERS = 8


def join_video(store: Store, video_id: str) -> bytes:
    """What plays so far of the video, as MP4. StoreError where it has no chunk, or what is committed is damaged."""
    return joined(store, playable(store, video_id))


def joined(store: Store, markers: Sequence[SegmentMarker]) -> bytes:
    """The MP4 of these segments. StoreError where a chunk is not the one that its marker names."""
    wanted = {markers[0].init_key: markers[0].init_sha256, **{c.key: c.sha256 for c in chunks_of(markers)}}
    with ThreadPoolExecutor(READERS) as pool:
        init, *segments = pool.map(lambda key: read_marked(store, key, wanted[key]), wanted)
    return join(init, segments)


def read_marked(store: Store, key: str, wanted: str) -> bytes:
    """The object's bytes, whose sha256 is `wanted`; Damaged where it is another one."""

    def read(data: bytes) -> bytes:
        if sha256(data) != wanted:
            raise Damaged(f"{masked(store.uri(key))} is damaged: its sha256 is not the one in its marker. {CURE}")
        return data

    return read_sound(store, key, read)
