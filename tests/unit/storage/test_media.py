"""Chunks must play alone, joined, and as a playlist, with every frame at its time."""

import io

import av
import numpy as np
import pytest

from flowcache.errors import StoreError
from flowcache.inputs.pixels import rgb
from flowcache.records import ChunkRecord
from flowcache.storage.media import AI_MADE, boxes, decode, encode_chunk, join, playlist

FPS, WIDTH, HEIGHT = 24, 64, 48
LENGTHS = (9, 12, 1, 5)


def clip(start: int, frames: int) -> np.ndarray:
    """Smooth colours in motion: a frame at the wrong place would show. uint8 [T, H, W, 3]."""
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    times = np.arange(start, start + frames)[:, None, None]
    channels = (column + 3 * times, 90 - row, column + row + 2 * times)
    smooth = [127.5 + 127.5 * np.sin(channel / 30) for channel in channels]
    return np.stack(np.broadcast_arrays(*smooth), -1).astype(np.uint8)


@pytest.fixture(scope="module")
def chunks():
    starts = np.cumsum((0, *LENGTHS[:-1]))
    return [encode_chunk(clip(int(start), n), int(start), FPS) for start, n in zip(starts, LENGTHS, strict=True)]


def records(lengths, key="media/v/{:05d}.a.m4s"):
    starts = np.cumsum((0, *lengths[:-1]))
    return [
        ChunkRecord(i, key.format(i), "", 1, n, int(s), 0, 0, 0, 0, 0, 0)
        for i, (n, s) in enumerate(zip(lengths, starts, strict=True))
    ]


def psnr(decoded: np.ndarray, original: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((decoded.astype(float) - original) ** 2))


def test_joined_after_their_init_every_frame_decodes_at_its_time(chunks):
    frames = list(decode(chunks[0].init, [chunk.data for chunk in chunks]))
    assert [round(time * FPS, 6) for _, time in frames] == list(range(sum(LENGTHS)))
    assert psnr(np.stack([pixels for pixels, _ in frames]), clip(0, sum(LENGTHS))) > 36


def test_each_chunk_decodes_alone(chunks):
    start = 0
    for chunk, length in zip(chunks, LENGTHS, strict=True):
        frames = list(decode(chunk.init, [chunk.data]))
        assert [round(time * FPS, 6) for _, time in frames] == list(range(start, start + length))
        assert psnr(np.stack([pixels for pixels, _ in frames]), clip(start, length)) > 35
        start += length


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (200, 60, 120)])
def test_colours_survive(colour):
    """The wrong matrix (BT.601 for 709) would be off by 20 and more."""
    frame = np.broadcast_to(np.array(colour, np.uint8), (1, HEIGHT, WIDTH, 3))
    chunk = encode_chunk(frame, 0, FPS)
    ((pixels, _),) = decode(chunk.init, [chunk.data])
    assert np.abs(pixels.astype(int) - colour).max() <= 4


def test_encoding_is_deterministic_and_shares_one_init(chunks):
    assert encode_chunk(clip(9, 12), 9, FPS) == chunks[1]
    assert len({chunk.init for chunk in chunks}) == 1
    assert encode_chunk(clip(9, 12), 10, FPS).data != chunks[1].data


@pytest.mark.slow
def test_encoding_is_deterministic_whatever_lay_in_memory():
    """With x264's MB-tree on an AVX-512 processor this fails once in 200 to 1,000 chunks."""
    chance = np.random.default_rng(0)
    frames = np.clip(chance.normal(128, 25, (17, 32, 32, 3)), 0, 255).astype(np.uint8)
    noise = chance.integers(0, 256, 1 << 20, np.uint8)
    first = encode_chunk(frames, 0, FPS)
    for _ in range(3000):
        left_behind = [noise[: chance.integers(1, 200_000)].copy() for _ in range(40)]
        del left_behind[::2]
        assert encode_chunk(frames, 0, FPS) == first


def test_one_closed_gop_in_one_fragment_without_an_index(chunks):
    for chunk in chunks:
        assert [kind for kind, _ in boxes(chunk.init)] == ["ftyp", "moov"]
        assert [kind for kind, _ in boxes(chunk.data)] == ["moof", "mdat"]
        with av.open(io.BytesIO(chunk.init + chunk.data)) as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.dts is not None]
            assert [packet.is_keyframe for packet in packets] == [True] + [False] * (len(packets) - 1)
            assert all(packet.pts == packet.dts for packet in packets)  # no B-frames
            assert all(round(packet.duration * packet.time_base * FPS) == 1 for packet in packets)
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert b"x264 - core" not in chunks[0].data  # nothing of the encoder's version in the bytes
    assert b"Lavf" not in chunks[0].init


def test_video_is_marked_as_made_by_ai(chunks):
    plain = join(chunks[0].init, [chunk.data for chunk in chunks])
    for file in (chunks[0].init + chunks[0].data, plain):
        with av.open(io.BytesIO(file)) as container:
            assert container.metadata["digital_source_type"] == AI_MADE
            assert AI_MADE.endswith("/digitalsourcetype/trainedAlgorithmicMedia")


def test_join_keeps_the_packets_and_puts_the_index_in_front(chunks):
    plain = join(chunks[0].init, [chunk.data for chunk in chunks])
    kinds = [kind for kind, _ in boxes(plain)]
    assert kinds.index("moov") < kinds.index("mdat") and "moof" not in kinds
    with av.open(io.BytesIO(plain)) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate) == (sum(LENGTHS), FPS)
        assert stream.duration * stream.time_base == pytest.approx(sum(LENGTHS) / FPS)
        decoded = [rgb(frame) for frame in container.decode(stream)]
    direct = [pixels for pixels, _ in decode(chunks[0].init, [chunk.data for chunk in chunks])]
    assert np.array_equal(np.stack(decoded), np.stack(direct))


def test_broken_bytes_are_reported(chunks):
    for init, data in ((b"", b""), (b"junk" * 9, chunks[0].data), (chunks[0].data, b"x")):
        with pytest.raises(StoreError, match="does not decode"):
            list(decode(init, [data]))
    assert list(decode(chunks[0].init, [])) == []
    with pytest.raises(StoreError, match="broken MP4: a box at byte 0 claims"):
        list(boxes(chunks[0].data[:-1][:40]))


def test_playlist_of_a_growing_and_of_a_finished_video():
    growing = playlist(records((9, 12)), FPS, done=False)
    assert growing == (
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:EVENT\n"
        '#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI="init.mp4"\n'
        "#EXTINF:0.375000,\n00000.a.m4s\n#EXTINF:0.500000,\n00001.a.m4s\n"
    )
    finished = playlist(records((9, 12, 12)), FPS, done=True)
    assert finished.startswith(growing.replace("EVENT", "VOD"))
    assert finished.endswith("00002.a.m4s\n#EXT-X-ENDLIST\n")


@pytest.mark.parametrize(("frames", "fps", "seconds"), [(1, 24, 4), (24, 8, 4), (35, 8, 4), (36, 8, 5), (97, 16, 6)])
def test_target_duration_is_constant_for_chunks_of_usual_length(frames, fps, seconds):
    assert f"#EXT-X-TARGETDURATION:{seconds}\n" in playlist(records((1, frames)), fps, done=False)


@pytest.mark.parametrize("fps", [1, 2, 5, 8, 24, 120])
def test_target_duration_stays_while_chunks_get_longer(fps):
    """A fresh start's first chunk has fewer frames than the others of SkyReels-V2: 9 and 12 here, or 17 and 20."""
    lists = [playlist(records(lengths), fps, done) for lengths in ((9,), (9, 12), (17, 20), (24,)) for done in (0, 1)]
    (target,) = {line for text in lists for line in text.splitlines() if "TARGETDURATION" in line}
    assert int(target.partition(":")[2]) >= int(24 / fps + 0.5)


def test_the_playlist_plays_from_a_folder(chunks, tmp_path):
    """As an ordinary player does it: open index.m3u8, get every frame."""
    (tmp_path / "init.mp4").write_bytes(chunks[0].init)
    for chunk, record in zip(chunks, records(LENGTHS), strict=True):
        (tmp_path / record.key.rpartition("/")[2]).write_bytes(chunk.data)
    (tmp_path / "index.m3u8").write_text(playlist(records(LENGTHS), FPS, done=True))
    with av.open(str(tmp_path / "index.m3u8"), options={"allowed_extensions": "ALL"}) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert len(times) == sum(LENGTHS)
    assert np.allclose(np.diff(times), 1 / FPS, atol=1e-4)


def test_bytes_that_are_no_video_do_not_join():
    with pytest.raises(StoreError, match="do not join"):
        join(b"torn", [b"too"])
