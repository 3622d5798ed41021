"""The master playlist: what it says of the stream is what the init segment and the chunks are."""

from dataclasses import replace

import av
import numpy as np
import pytest

from flowcache.errors import ObjectError
from flowcache.storage import layout
from flowcache.storage.commits import put_playlist, read_commits
from flowcache.storage.documents import to_json
from flowcache.storage.media import encode_chunk
from flowcache.storage.objects.store import Store
from flowcache.storage.playlist import master, peak
from flowcache.storage.repair import repair
from flowcache.storage.stream import stream_of
from flowcache.storage.verify import verify
from tests.unit.storage.samples import FPS, HEIGHT, WIDTH, Studio, request

PROFILES = {"High": 100, "High 4:4:4 Predictive": 244, "Main": 77}


@pytest.fixture
def studio(tmp_path):
    made = Studio(Store(str(tmp_path)), (request("cat"), request("dog", 1)))
    made.run()
    return made


def attributes(text: str) -> dict[str, str]:
    (line,) = [line for line in text.splitlines() if line.startswith("#EXT-X-STREAM-INF:")]
    return dict(one.split("=") for one in line.partition(":")[2].split(","))


@pytest.mark.parametrize(("width", "height", "fps"), [(64, 64, 12), (960, 544, 24), (1280, 720, 24), (1920, 1080, 60)])
def test_codecs_are_what_the_decoder_finds(tmp_path, width, height, fps):
    made = encode_chunk(np.zeros((2, height, width, 3), np.uint8), 0, fps)
    (tmp_path / "one.mp4").write_bytes(made.init + made.data)
    told = stream_of(made.init)
    with av.open(str(tmp_path / "one.mp4")) as container:
        context = container.streams.video[0].codec_context
        parameters = bytes(context.extradata)  # of H.264: version, profile, compatibility, level
        assert told == {"codecs": f"avc1.{parameters[1:4].hex()}", "resolution": f"{context.width}x{context.height}"}
        assert PROFILES[context.profile] == parameters[1]


def test_what_is_no_init_segment_is_told():
    init = encode_chunk(np.zeros((1, 16, 16, 3), np.uint8), 0, 8).init
    with pytest.raises(ObjectError, match="has no box moov"):
        stream_of(b"")
    with pytest.raises(ObjectError, match="broken MP4"):
        stream_of(init[:-9])
    with pytest.raises(ObjectError, match="is b'hvc1'; accepted: avc1"):
        stream_of(init.replace(b"avc1", b"hvc1"))


def test_it_says_what_is_committed(studio):
    markers = read_commits(studio.store).markers["cat"]
    text = studio.store.get(layout.master_key("cat")).decode()
    assert text.splitlines()[-1] == "index.m3u8" and text.startswith("#EXTM3U\n")
    told = attributes(text)
    sizes = [chunk.bytes for marker in markers for chunk in marker.chunks]
    seconds = sum(marker.frames for marker in markers) / FPS
    assert int(told["AVERAGE-BANDWIDTH"]) == -(-8 * sum(sizes) // seconds) <= int(told["BANDWIDTH"])
    assert told["RESOLUTION"] == f"{WIDTH}x{HEIGHT}" and told["FRAME-RATE"] == "8.000"
    assert told["CODECS"] == f'"{stream_of(studio.store.get(layout.init_key("cat")))["codecs"]}"'


def test_the_peak_is_that_of_two_to_six_seconds(studio):
    """Chunks of half a second: 4 to 12 of them are 0.5 to 1.5 times the target of 4 s."""
    chunks = [chunk for marker in read_commits(studio.store).markers["cat"] for chunk in marker.chunks]
    sized = [replace(chunks[0], chunk=n, bytes=size) for n, size in enumerate([10] * 9 + [90] * 4 + [500] + [10] * 9)]
    assert peak(sized, FPS) == 8 * (3 * 90 + 500) / 2
    assert peak(sized[:3], FPS) == 8 * 30 / 1.5  # shorter than two seconds: all of it


def test_repair_makes_it_anew_where_it_is_lost_or_another(studio):
    right = studio.store.get(layout.master_key("cat"))
    for spoil in (lambda key: studio.store.delete(key), lambda key: studio.store.put(key, b"#EXTM3U\n")):
        spoil(layout.master_key("cat"))
        (problem,) = verify(studio.store).problems
        assert problem.key == layout.master_key("cat") and "master playlist" in str(problem)
        assert repair(studio.store).withdrawn == {}
        assert studio.store.get(layout.master_key("cat")) == right and verify(studio.store).sound


def test_of_what_an_older_version_wrote_there_is_none(tmp_path):
    older = Studio(Store(str(tmp_path)), (request("cat", 1),), hardware=None)
    older.run()
    (marker,) = read_commits(older.store).markers["cat"]
    assert master([marker]) is None and b"stream" not in to_json(marker)
    assert not older.store.exists(layout.master_key("cat")) and verify(older.store).sound
    newer = replace(marker, stream={"codecs": "avc1.64000a", "resolution": "32x16"})
    put_playlist(older.store, "cat", [marker, newer])  # a run that goes on with it
    assert "32x16" in older.store.get(layout.master_key("cat")).decode()
