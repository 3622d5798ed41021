"""One plain MP4 of a video, wherever the video stands."""

import io

import av
import pytest

from flowcache.errors import StoreError
from flowcache.storage import layout
from flowcache.storage.export import export
from flowcache.storage.objects.store import Store


def frames(data: bytes) -> int:
    with av.open(io.BytesIO(data)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_video_becomes_one_file(studio, tmp_path):
    size = export(studio.store, "cat", str(tmp_path / "films" / "cat.mp4"))
    data = (tmp_path / "films" / "cat.mp4").read_bytes()
    assert len(data) == size and frames(data) == 24


def test_a_bare_file_name_lands_in_the_current_folder(studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(studio.store, "dog", "dog.mp4")
    assert frames((tmp_path / "dog.mp4").read_bytes()) == 8


def test_an_unfinished_video_gives_what_plays(studio):
    studio.store.delete(layout.marker_key("cat", 1))
    export(studio.store, "cat", studio.store.uri("part.mp4"))
    assert frames(Store(studio.store.url).get("part.mp4")) == 8


def test_a_video_without_chunks_is_refused(studio, tmp_path):
    with pytest.raises(StoreError, match="holds no chunks of video emu"):
        export(studio.store, "emu", str(tmp_path / "emu.mp4"))
