"""One plain MP4 of a video, made from its chunks without encoding again."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flowcache.errors import StoreError, masked
from flowcache.storage import layout
from flowcache.storage.commits import chunks_of
from flowcache.storage.documents import SegmentMarker, read_all
from flowcache.storage.keys import listed
from flowcache.storage.media import join
from flowcache.storage.objects.store import Store

READERS = 8


def export(store: Store, video_id: str, target_url: str, **storage_options: Any) -> int:
    """Write the video's committed chunks as one MP4 to `target_url` (a file or object) and return its bytes.

    An unfinished video gives what plays so far. StoreError where it has no chunk.
    """
    keys = [found.entry.key for found in listed(store, f"{layout.COMMITS}/{video_id}", "marker")]
    markers = read_all(store, SegmentMarker, keys)
    markers = [marker for index, marker in enumerate(markers) if marker.segment == index]
    if not markers:
        raise StoreError(f"{masked(store.url)} holds no chunks of video {video_id}")
    with ThreadPoolExecutor(READERS) as pool:
        segments = list(pool.map(store.get, [chunk.key for chunk in chunks_of(markers)]))
    data = join(store.get(markers[0].init_key), segments)
    folder, _, name = target_url.rpartition("/")
    Store(folder or ("/" if target_url.startswith("/") else "."), **storage_options).put(name, data)
    return len(data)
