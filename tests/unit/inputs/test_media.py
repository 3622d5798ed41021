"""Manifests and media from files as people have them: whole, broken, mislabelled, remote."""

import gzip
import json
import os
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import av
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flowcache.errors import MediaError, StoreError, masked
from flowcache.inputs import lines, readers, urls
from flowcache.inputs import media as sources
from flowcache.inputs.media import load_clip, load_image, probe_media
from flowcache.inputs.readers import read_rows, rows_of
from flowcache.inputs.sandbox import Sandbox
from flowcache.inputs.told import Told

ROOT = Path(__file__).parents[3]
GREY_STEP = 5  # the frame with number i of a test video is grey i * GREY_STEP


def read(folder: Path, name: str, content: bytes | str):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_rows(str(path))


def places(problems) -> list[tuple[int | None, str]]:
    return [(problem.row, problem.field) for problem in problems]


# Rows


def test_json_lines_keep_their_line_numbers(tmp_path):
    text = '\ufeff{"id": "a"}\r\n\r\n{"id": "b", "n": [1.5, null, {"x": true}]}\n   \n{"id": "c"}'
    assert read(tmp_path, "m.jsonl", text) == (
        [(1, {"id": "a"}), (3, {"id": "b", "n": [1.5, None, {"x": True}]}), (5, {"id": "c"})],
        [],
    )
    assert read(tmp_path, "m.NDJSON", '{"id": "a"}')[0] == [(1, {"id": "a"})]


def test_broken_lines_are_told_and_the_rest_is_read(tmp_path):
    lines = [
        b'{"id": "good"}', b"{bad}", b"[1]", b"7", b'{"a": 1, "a": 2, "id": "v"}', b'{"q": "\xff"}', b"[" * 100_000,
        b'{"n": ' + b"1" * 5000 + b"}", b'{"s": [{"x": 1, "x": 1}]}', b'{"id": "last"}',
    ]  # fmt: skip
    found, problems = read(tmp_path, "m.jsonl", b"\n".join(lines))
    assert found == [(1, {"id": "good"}), (10, {"id": "last"})]
    assert [problem.row for problem in problems] == list(range(2, 10))
    assert (problems[3].field, problems[3].video) == ("a", "v")


def test_nan_and_infinity_reach_the_checks_of_the_fields(tmp_path):
    found, problems = read(tmp_path, "m.jsonl", '{"a": NaN, "b": -Infinity, "c": 1e999}')
    assert problems == [] and str(found[0][1]) == "{'a': nan, 'b': -inf, 'c': inf}"


def test_csv_cells_become_typed_fields(tmp_path):
    text = (
        '\ufeffid, prompt ,seconds,seed,width,shots,labels,label.k,policy\r\n'
        'a,"two\r\nlines, ""quoted""",1.5,12,64.0,,,v,paper:slow\r\n'
        '\r\n'
        '007,x,nan,x,1e2,"[{""prompt"": ""p"", ""cut"": false}]","{""z"": 1}",v,"{""name"": ""off""}"\r\n'
    )  # fmt: skip
    found, problems = read(tmp_path, "m.csv", text)
    assert problems == [] and [number for number, _ in found] == [2, 5]
    assert found[0][1] == {
        "id": "a", "prompt": 'two\nlines, "quoted"', "seconds": 1.5, "seed": 12, "width": 64.0, "labels": {"k": "v"},
        "policy": "paper:slow",
    }  # fmt: skip
    row = found[1][1]
    assert row["id"] == "007" and row["seed"] == "x" and np.isnan(row["seconds"])
    assert row["shots"] == [{"prompt": "p", "cut": False}] and row["labels"] == {"z": 1, "k": "v"}
    assert row["policy"] == {"name": "off"}


def test_broken_csv_records_are_told_and_the_rest_is_read(tmp_path):
    records = [
        b"id,prompt,shots,labels,label.k", b"a,b", b"c,\xff,,,", b"d,x,[oops,,", b'e,x,,"{""k"": 1}",v', b"f,x,,,",
        b"g," + b"x" * 200_000 + b",,,", b"h,x,,,", b'i,"x" y,,,', b"j,x,,,", b'k,"open,,,',
    ]  # fmt: skip
    found, problems = read(tmp_path, "m.csv", b"\n".join(records))
    assert [row["id"] for _, row in found] == ["f", "h", "j"]
    assert places(problems) == [
        (2, ""), (3, "prompt"), (4, "shots"), (5, "label.k"), (7, ""), (9, ""), (11, ""),
    ]  # fmt: skip
    assert [problem.video for problem in problems[1:4]] == ["c", "d", "e"]


@pytest.mark.parametrize("header", ["id,id", "id;prompt;seed", "id\tprompt", b"id,\xff"])
def test_a_bad_csv_header_is_one_problem(tmp_path, header):
    header = header if isinstance(header, bytes) else header.encode()
    found, problems = read(tmp_path, "m.csv", header + b"\n" + b"a,b,c\n" * 5)
    assert found == [] and places(problems) == [(1, "")]


def test_parquet_gives_plain_values_and_leaves_nulls_out(tmp_path):
    shot = pa.struct([("prompt", pa.string()), ("frames", pa.int32()), ("cut", pa.bool_())])
    table = pa.table({
        "id": ["a", None],
        "shots": pa.array([[{"prompt": "p", "frames": 9, "cut": None}], None], pa.list_(shot)),
        "labels": pa.array([[("k", "v"), ("none", None)], []], pa.map_(pa.string(), pa.string())),
        "label.z": ["q", None],
        "seed": pa.array([1, None], pa.uint64()),
        "guidance": pa.array([1.5, float("nan")], pa.float32()),
        "seconds": pa.array([Decimal("2.50"), None]),
        "policy": ['{"name": "off"}', "paper"],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "m.parquet")
    found, problems = read_rows(str(tmp_path / "m.parquet"))
    assert problems == []
    assert found[0] == (1, {
        "id": "a", "shots": [{"prompt": "p", "frames": 9}], "labels": {"k": "v", "z": "q"}, "seed": 1,
        "guidance": 1.5, "seconds": 2.5, "policy": {"name": "off"},
    })  # fmt: skip
    assert found[1][0] == 2 and set(found[1][1]) == {"guidance", "policy"}


def test_parquet_of_pandas_reads_without_its_index(tmp_path):
    frame = pd.DataFrame({"id": ["a", "b", "c"], "seed": [1, None, 3]})[1:]
    frame.to_parquet(tmp_path / "m.parquet")
    assert read_rows(str(tmp_path / "m.parquet")) == ([(1, {"id": "b"}), (2, {"id": "c", "seed": 3.0})], [])


def test_damaged_parquet_files_never_raise(tmp_path):
    whole = (ROOT / "manifests" / "example.parquet").read_bytes()
    with Sandbox(most=1) as sandbox:
        for cut in range(0, len(whole), 197):
            broken = bytearray(whole)
            broken[cut : cut + 60] = b"\x99" * len(broken[cut : cut + 60])
            for content in (whole[:cut], bytes(broken)):
                (tmp_path / "m.parquet").write_bytes(content)
                told = Told()
                assert list(rows_of(str(tmp_path / "m.parquet"), sandbox, told)) or told.problems


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.jsonl", b"", "is empty"),
        ("m.jsonl", b"\n \n", "is empty"),
        ("m.csv", b"id,prompt\n", "has no rows"),
        ("m.jsonl", b"PAR1" + b"x" * 50, "holds a Parquet file"),
        ("m.jsonl", gzip.compress(b"{}", mtime=0), "holds gzip"),
        ("m.jsonl", '{"id": "a"}'.encode("utf-16"), "holds UTF-16"),
        ("m.jsonl", '{"id": "a"}'.encode("utf-16-le"), "holds binary"),
        ("m.jsonl", b"id,prompt\na,b\n", "no JSON"),
        ("m.jsonl", b'[{"id": "a"},\n{"id": "b"}]', "over many lines"),
        ("m.jsonl", b'{\n  "id": "a"\n}\n', "over many lines"),
        ("m.csv", b'{"id": "a"}\n', "holds JSON"),
        ("m.parquet", b"id,prompt\na,b\n", "holds text"),
        ("m.parquet", b"PAR1" + b"x" * 50, "damaged"),
        ("m.json", b"{}", "is named .json; accepted: .jsonl, "),
        ("m", b"{}", "is named without an ending; accepted"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_one_problem(tmp_path, name, content, says):
    found, problems = read(tmp_path, name, content)
    assert found == [] and places(problems) == [(None, "")] and says in problems[0].message


def test_files_that_cannot_be_read_are_one_problem(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "hollow").mkdir()
    for url, says in [
        (str(tmp_path / "none.jsonl"), "does not exist"),
        (str(tmp_path / "hollow"), "is a folder without a table"),
        (str(tmp_path / "pipe.jsonl"), "no regular file"),
        ("a\0b.jsonl", "cannot be read"),
        ("memory://nowhere/none.jsonl", "does not exist"),
        ("unheard://x/m.jsonl", "unknown scheme 'unheard'"),
        ("github://x/m.jsonl", "cannot be read (TypeError: GithubFileSystem"),
        ("dir://x/m.jsonl", "cannot be read (AttributeError"),
        ("http://user:hunter2@127.0.0.1:9/m.jsonl?sig=hunter2", "cannot be reached"),
    ]:
        found, problems = read_rows(url)
        assert found == [] and len(problems) == 1 and says in problems[0].message, url
        assert "hunter2" not in str(problems)


def test_long_lines_and_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LINE_LIMIT", 1000)
    long = b'{"a": "' + b"x" * 5000 + b'"}\n'
    assert places(read(tmp_path, "m.jsonl", long + b'{"b": 1}\n' + long)[1]) == [(1, ""), (3, "")]
    assert read(tmp_path, "m.jsonl", b'{"b": 1}\n' + long)[0] == [(1, {"b": 1})]
    found, problems = read(tmp_path, "m.csv", b"id,prompt\na," + b"x" * 5000 + b"\nb,y\n")
    assert found == [(3, {"id": "b", "prompt": "y"})] and places(problems) == [(2, "")]
    monkeypatch.setattr(readers, "FILE_LIMIT", 1 << 20)
    assert "larger than 1 MiB" in read(tmp_path, "m.jsonl", b" " * (1 << 20) + b"{}")[1][0].message


def test_manifests_come_from_any_fsspec_url():
    fsspec.filesystem("memory").pipe("/night/m.jsonl", b'{"id": "a"}\n')
    assert read_rows("memory://night/m.jsonl") == ([(1, {"id": "a"})], [])


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([".jsonl", ".csv", ".parquet"]), st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_end_as_rows_or_problems(tmp_path_factory, suffix, content):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    found, problems = read_rows(str(path))
    assert found or problems
    assert all(isinstance(number, int) and isinstance(row, dict) for number, row in found)


# URLs


@pytest.mark.parametrize(
    ("url", "base", "absolute"),
    [
        ("media/a.png", "/data/night/m.jsonl", "/data/night/media/a.png"),
        ("../a.png", "/data/night/m.jsonl", "/data/a.png"),
        ("../a.png", "file:///data/night/m.jsonl", "/data/a.png"),
        ("/x/a.png", "s3://bucket/night/m.jsonl", "/x/a.png"),
        ("media/a.png", "s3://bucket/night/m.jsonl", "s3://bucket/night/media/a.png"),
        ("../a.png", "https://host/n/m.jsonl?sig=1", "https://host/a.png"),
        ("s3://other/a.png", "/data/night/m.jsonl", "s3://other/a.png"),
        ("file:///x/a.png", "s3://bucket/m.jsonl", "/x/a.png"),
    ],
)
def test_relative_media_lie_beside_the_manifest(url, base, absolute):
    assert urls.resolve(url, base) == absolute


def test_without_a_manifest_media_lie_in_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert urls.resolve("a.png", "") == str(tmp_path / "a.png")
    assert urls.resolve("a.png", "m.jsonl") == str(tmp_path / "a.png")


@pytest.mark.parametrize(
    "url",
    ["https://u:hunter2@h/x", "s3://u:p/hunter2@b/x?hunter2", "see x://h/y?a=hunter2&b=hunter2 and z://hunter2@h/"],
)
def test_masked_text_keeps_no_secret(url):
    assert "hunter2" not in masked(url).replace("u:p/hunter2", "")


# Pictures


def picture(path: Path, width: int = 96, height: int = 48, mode: str = "RGB") -> Path:
    """Red left half, blue right half."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0], pixels[:, width // 2 :, 2] = 255, 255
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tiff"])
def test_pictures_are_opened_whole_and_fitted(tmp_path, suffix):
    path = picture(tmp_path / f"a.{suffix}")
    info = probe_media(f"a.{suffix}", "image", str(tmp_path / "m.jsonl"))
    assert (info.url, info.width, info.height, info.frames) == (str(path), 96, 48, 1)
    pixels = load_image(info.url, 32, 32)
    assert pixels.shape == (1, 32, 32, 3) and pixels.dtype == np.uint8
    assert (pixels[0, :, 4, 0] > 200).all() and (pixels[0, :, -4, 2] > 200).all()
    assert np.array_equal(pixels, load_image(info.url, 32, 32))


def test_a_picture_of_the_right_size_is_taken_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(load_image(str(tmp_path / "a.png"), 64, 48)[0], pixels)


@pytest.mark.parametrize("values", [np.full((4, 4), 1 << 20, np.int32), np.full((4, 4), -1, np.int32)])
def test_pictures_whose_white_nobody_knows_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "deep.tif")
    with pytest.raises(MediaError, match="has numbers of 32 bits a pixel; accepted: 8 or 16 bits"):
        load_image(str(tmp_path / "deep.tif"), 16, 16)


def test_odd_pictures(tmp_path):
    Image.new("I;16", (20, 30), 65535).save(tmp_path / "deep.png")
    Image.new("RGBA", (20, 30), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("P", (20, 30), 0).save(tmp_path / "palette.gif")
    assert (load_image(str(tmp_path / "deep.png"), 16, 16) == 255).all()
    assert (load_image(str(tmp_path / "clear.png"), 16, 16) == 255).all()
    assert load_image(str(tmp_path / "palette.gif"), 16, 16).shape == (1, 16, 16, 3)
    upright, exif = Image.open(picture(tmp_path / "a.png")), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    upright.save(tmp_path / "turned.jpg", exif=exif)
    turned = load_image(str(tmp_path / "turned.jpg"), 48, 96)[0]
    assert (turned[8, :, 0] > 200).all() and (turned[-8, :, 2] > 200).all()


def test_pictures_cut_short_or_scrambled_are_media_errors(tmp_path):
    refused = 0
    for suffix in ("png", "jpg", "webp", "gif", "tiff", "bmp"):
        whole = picture(tmp_path / f"a.{suffix}", 64, 64).read_bytes()
        step = max(len(whole) // 25, 1)
        for cut in range(0, len(whole), step):
            scrambled = bytearray(whole)
            scrambled[cut] ^= 0xFF
            for content in (whole[:cut], bytes(scrambled)):
                (tmp_path / "b").write_bytes(content)
                try:
                    load_image(str(tmp_path / "b"), 16, 16)
                except MediaError as error:
                    refused += bool(str(error))
    assert refused > 100


def test_huge_pictures_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    with pytest.raises(MediaError, match="9000x9000 pixels"):
        load_image(str(tmp_path / "bomb.png"), 64, 64)
    monkeypatch.setattr(sources, "BYTE_LIMIT", 1000)
    with pytest.raises(MediaError, match="larger than"):
        load_image(str(tmp_path / "bomb.png"), 64, 64)


@pytest.mark.parametrize(
    "url", ["ftp://h/a.png", "simplecache::s3://b/a.png", "zip://a::http://h/b.zip", "github://o:r@m/a.png", "data://x"]
)
def test_other_schemes_are_refused(url):
    with pytest.raises(MediaError, match="accepted: a path or file, s3"):
        probe_media(url, "image", "")


def test_media_come_from_other_filesystems_too(tmp_path):
    content = picture(tmp_path / "a.png").read_bytes()
    fsspec.filesystem("memory").pipe("/night/media/a.png", content)
    info = probe_media("media/a.png", "image", "memory://night/m.jsonl")
    assert info.url == "memory://night/media/a.png" and load_image(info.url, 32, 32).shape == (1, 32, 32, 3)
    with pytest.raises(MediaError, match="does not exist"):
        probe_media("media/b.png", "image", "memory://night/m.jsonl")


# Videos


def video(path: Path, frames: int = 48, rate: int = 12, codec: str = "libx264", gop: int = 10, **options) -> str:
    """Greys that get lighter by GREY_STEP a frame, 64 x 48."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.gop_size = 64, 48, "yuv420p", gop
        stream.codec_context.thread_count = 1
        for i in range(frames):
            grey = np.full((48, 64, 3), i * GREY_STEP, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


def numbers(pixels: np.ndarray) -> list[int]:
    """Which frames of a test video these are."""
    return [round(float(frame.mean()) / GREY_STEP) for frame in pixels]


KINDS = {
    "a.mp4": {}, "frag.mp4": {"movflags": "frag_keyframe+empty_moov"}, "onekey.mp4": {"gop": 1000}, "a.mkv": {},
    "a.webm": {"codec": "libvpx-vp9"}, "b.webm": {"codec": "libvpx"}, "a.ts": {}, "onekey.ts": {"gop": 1000},
    "a.avi": {"codec": "ffv1"},
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_tail_of_a_video_is_its_last_frames(tmp_path, name):
    url = video(tmp_path / name, **KINDS[name])
    info = probe_media(name, "video", str(tmp_path / "m.jsonl"))
    assert (info.url, info.width, info.height, info.frames, info.frames_at(12)) == (url, 64, 48, 48, 48)
    tail = load_clip(url, 9, 12, 32, 32)
    assert tail.shape == (9, 32, 32, 3) and tail.dtype == np.uint8
    assert numbers(tail) == list(range(39, 48))
    assert np.array_equal(tail, load_clip(url, 9, 12, 32, 32))


def test_the_tail_is_sampled_by_time(tmp_path):
    url = video(tmp_path / "a.mp4", frames=50, rate=25)
    assert numbers(load_clip(url, 5, 25, 32, 32)) == [45, 46, 47, 48, 49]
    assert numbers(load_clip(url, 5, 5, 32, 32)) == [29, 34, 39, 44, 49]
    assert numbers(load_clip(url, 5, 50, 32, 32)) == [47, 47, 48, 48, 49]  # between two frames: the earlier
    assert numbers(load_clip(url, 4, 12, 32, 32)) == [43, 45, 47, 49]  # times 42.75, 44.83, 46.92, 49
    assert numbers(load_clip(url, 5, 25, 32, 32, start=True)) == [0, 1, 2, 3, 4]
    assert numbers(load_clip(url, 4, 12, 32, 32, start=True)) == [0, 2, 4, 6]  # times 0, 2.08, 4.17, 6.25


def test_every_frame_can_be_reached_and_no_more(tmp_path):
    url = video(tmp_path / "a.mp4", frames=24)
    assert numbers(load_clip(url, 24, 12, 32, 32)) == list(range(24))
    with pytest.raises(MediaError, match="has 24 frames at 12 fps, and 25 are needed"):
        load_clip(url, 25, 12, 32, 32)
    assert numbers(load_clip(url, 30, 12, 32, 32, least=10)) == list(range(4, 24))
    with pytest.raises(MediaError, match="and 25 are needed"):
        load_clip(url, 50, 12, 32, 32, least=25)
    assert probe_media(url, "video", "").frames_at(24) == 47


def test_videos_come_from_other_filesystems_too(tmp_path):
    content = Path(video(tmp_path / "a.mp4")).read_bytes()
    fsspec.filesystem("memory").pipe("/night/a.mp4", content)
    info = probe_media("a.mp4", "video", "memory://night/m.jsonl")
    assert numbers(load_clip(info.url, 3, 12, 32, 32)) == [45, 46, 47]


def test_a_video_of_one_frame(tmp_path):
    info = probe_media(video(tmp_path / "a.mp4", frames=1), "video", "")
    assert (info.frames, info.fps, info.seconds, info.frames_at(24)) == (1, 0.0, 0.0, 1)


def test_the_example_video_is_what_the_demo_needs():
    info = probe_media("media/start.mp4", "video", str(ROOT / "manifests" / "demo.jsonl"))
    assert (info.width, info.height, info.frames_at(12)) == (64, 64, 24)


def test_what_is_no_video_is_a_media_error(tmp_path):
    picture(tmp_path / "picture.png")
    (tmp_path / "text.mp4").write_text("no video " * 100)
    (tmp_path / "empty.mp4").touch()
    whole = Path(video(tmp_path / "whole.mp4")).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{tmp_path}/whole.mp4\n")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for name, says in [
        ("picture.png", "is no video"), ("text.mp4", "is no video"), ("empty.mp4", "is empty"),
        ("cut.mp4", "is no video"), ("list.m3u8", "which is no file beside it"), ("sound.mp4", "has no video in it"),
        ("none.mp4", "does not exist"), (".", "is a folder"),
    ]:  # fmt: skip
        with pytest.raises(MediaError, match=says):
            probe_media(name, "video", str(tmp_path / "m.jsonl"))


def test_scrambled_videos_end_as_frames_or_media_errors(tmp_path):
    whole = Path(video(tmp_path / "a.mp4", movflags="frag_keyframe+empty_moov")).read_bytes()
    refused = 0
    for start in range(0, len(whole), 101):
        broken = bytearray(whole)
        broken[start : start + 40 : 3] = b"\x5a" * len(broken[start : start + 40 : 3])
        (tmp_path / "b.mp4").write_bytes(broken)
        try:
            assert load_clip(str(tmp_path / "b.mp4"), 9, 12, 32, 32).shape == (9, 32, 32, 3)
        except MediaError:
            refused += 1
    assert refused > 5


def test_a_tail_needs_no_decoding_of_what_lies_before(tmp_path):
    url = video(tmp_path / "a.mp4", frames=48, gop=8)
    with open(url, "rb") as file, sources._Video(file) as opened:
        decoded = [time for time, _ in opened.frames_from(Fraction(40, 12))]
    assert len(decoded) <= 16 and decoded == sorted(decoded)


def test_rows_of_the_examples_agree_with_their_formats():
    for name, count in (("demo.jsonl", 13), ("example.csv", 4), ("example.parquet", 3)):
        found, problems = read_rows(str(ROOT / "manifests" / name))
        assert problems == [] and len(found) == count
        json.dumps([row for _, row in found], allow_nan=False)


def test_a_file_that_was_replaced_after_the_check_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)
    checked = probe_media(str(path), "image", "").sha256
    assert load_image(str(path), 8, 8, checked).shape == (1, 8, 8, 3)
    Image.new("RGB", (8, 8), "blue").save(path)
    with pytest.raises(MediaError, match="not the file any more"):
        load_image(str(path), 8, 8, checked)


def test_a_server_that_trickles_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(urls, "FETCH_SECONDS", -1.0)
    fsspec.filesystem("memory").pipe_file("/trickle/x.png", b"x")
    with pytest.raises(StoreError, match="takes longer than -1 s to fetch") as told:
        load_image("memory://trickle/x.png", 8, 8)
    assert told.value.passing


def test_the_errors_of_a_clouds_client_are_told_like_others(monkeypatch):
    class Refused(Exception):
        pass

    class Cloud(MemoryFileSystem):
        protocol = "memory"

        def info(self, path, **options):
            raise Refused("bad request, 400")

    monkeypatch.setattr(urls, "url_to_fs", lambda url, **access: (Cloud(), url))
    with pytest.raises(StoreError, match=r"^cannot be read \(Refused: bad request, 400\)$") as told:
        probe_media("memory://bucket/x.png", "image", "")
    assert not told.value.passing and not told.value.of_machine
