"""One plain MP4 of a video."""

import io

import av
import pytest

from flowcache.errors import StoreError
from flowcache.storage import layout
from flowcache.storage.documents import Damaged
from flowcache.storage.joined import join_video
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store


def frames(data: bytes) -> int:
    with av.open(io.BytesIO(data)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_video_becomes_one_file(studio):
    assert frames(join_video(studio.store, "cat")) == 24


def test_an_unfinished_video_gives_what_plays(studio):
    studio.store.delete(layout.marker_key("cat", 1))
    studio.store.delete(layout.done_key("cat"))
    assert frames(join_video(studio.store, "cat")) == 8


def spoil(store: Store, how: str) -> str:
    """Damage `cat`; what is said of it."""
    media = [found.entry.key for found in listed(store, "media/cat", "media")]
    if how == "flipped":  # in the middle of a frame, where decoders go on
        data = bytearray(store.get(media[1]))
        data[-40] ^= 16
        store.put(media[1], bytes(data))
        return "m4s is damaged: its sha256"
    if how == "exchanged":
        first, second = map(store.get, media[:2])
        store.put(media[0], second)
        store.put(media[1], first)
        return "m4s is damaged: its sha256"
    if how == "init":
        store.put(layout.init_key("cat"), store.get(layout.init_key("cat")) + bytes(8))
        return "init.mp4 is damaged: its sha256"
    if how == "lost":
        store.delete(layout.marker_key("cat", 1))
        return "DONE.json says more"
    store.put(layout.marker_key("cat", 0), store.get(layout.marker_key("dog", 0)))
    return "it is that of segment 0 of video dog"


@pytest.mark.parametrize("how", ["flipped", "exchanged", "init", "lost", "of another video"])
def test_a_damaged_video_is_not_joined(studio, how):
    said = spoil(studio.store, how)
    with pytest.raises(Damaged, match=said):
        join_video(studio.store, "cat")
    assert join_video(studio.store, "dog")


def test_a_video_without_chunks_is_refused(studio):
    with pytest.raises(StoreError, match="holds no chunks of video emu"):
        join_video(studio.store, "emu")
