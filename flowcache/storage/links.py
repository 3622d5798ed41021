"""Links to play a video from a private bucket, for whoever has them, until they expire."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from flowcache.errors import InputError, Problem, masked
from flowcache.storage import layout
from flowcache.storage.committed import chunks_of, playable
from flowcache.storage.documents import SegmentMarker
from flowcache.storage.objects.schemes import scheme_of
from flowcache.storage.objects.store import Store
from flowcache.storage.playlist import playlist

LONGEST = 7 * 24 * 3600  # seconds; S3 and Google take no more
WORKERS = 8


def links(store: Store, videos: Sequence[str], expires: int) -> dict[str, str]:
    """video id -> a URL that plays what is committed of it for `expires` seconds, without credentials.

    A signature holds for one object, so a playlist with signed addresses is written to `_links` and signed itself.
    InputError where the store signs nothing, StoreError where its credentials can't, or for a video without chunks.
    """
    if scheme_of(store.url) is None:
        message = (
            f"{masked(store.url)} cannot sign links; accepted: an output on S3 (s3://bucket/prefix), "
            "Google Cloud Storage (gs://bucket/prefix) or Azure (az://container/prefix)"
        )
        raise InputError([Problem("output", "", message)])
    if not 1 <= expires <= LONGEST:
        raise InputError([Problem("--expires", "", f"got {expires} seconds; accepted: 1 to {LONGEST} (7 days)")])
    until = int(time.time()) + expires
    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip(videos, pool.map(lambda name: link(store, name, expires, until), videos), strict=True))


def link(store: Store, video_id: str, expires: int, until: int) -> str:
    """One signed URL. until: unix seconds of its end, which `gc` reads from the playlist's name."""
    markers = playable(store, video_id)
    plain = playlist(chunks_of(markers), markers[0].fps, store.exists(layout.done_key(video_id)))
    signed = {key.rpartition("/")[2]: store.sign(key, expires) for key in keys_of(markers)}
    lines = [signed.get(line, line) for line in plain.splitlines()]
    init = markers[0].init_key.rpartition("/")[2]
    text = "\n".join(lines).replace(f'URI="{init}"', f'URI="{signed[init]}"') + "\n"
    key = layout.link_key(video_id, until)
    store.put(key, text.encode())
    return store.sign(key, expires)


def keys_of(markers: Sequence[SegmentMarker]) -> list[str]:
    return [markers[0].init_key, *(chunk.key for chunk in chunks_of(markers))]
