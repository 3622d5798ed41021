"""One plain MP4 of a video, made from its chunks without encoding again."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flowcache.errors import masked
from flowcache.storage.committed import CURE, chunks_of, playable
from flowcache.storage.documents import Damaged, sha256
from flowcache.storage.media import join
from flowcache.storage.objects.store import Store
from flowcache.storage.proven import read_sound

READERS = 8


def export(store: Store, video_id: str, target_url: str, **storage_options: Any) -> int:
    """Write the video's committed chunks as one MP4 to `target_url` (a file or object) and return its bytes.

    An unfinished video gives what plays so far. StoreError where it has no chunk, or what is committed is damaged.
    """
    markers = playable(store, video_id)
    wanted = {markers[0].init_key: markers[0].init_sha256, **{c.key: c.sha256 for c in chunks_of(markers)}}
    with ThreadPoolExecutor(READERS) as pool:
        init, *segments = pool.map(lambda key: read_marked(store, key, wanted[key]), wanted)
    data = join(init, segments)
    folder, _, name = target_url.rpartition("/")
    Store(folder or ("/" if target_url.startswith("/") else "."), **storage_options).put(name, data)
    return len(data)


def read_marked(store: Store, key: str, wanted: str) -> bytes:
    """The object's bytes, whose sha256 is `wanted`; Damaged where it is another one."""

    def read(data: bytes) -> bytes:
        if sha256(data) != wanted:
            raise Damaged(f"{masked(store.uri(key))} is damaged: its sha256 is not the one in its marker. {CURE}")
        return data

    return read_sound(store, key, read)
