"""What people have in Python, and the pictures and videos that their rows name, planned as they would be rendered."""

import io
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image, ImageCms

import flowcache
from flowcache.storage.objects.store import Store
from tests.unit.inputs.tiffs import float_tiff
from tests.unit.storage.samples import Studio, request

ROWS = [{"id": "a", "prompt": "a red circle", "seed": 7}, {"id": "b", "prompt": "a blue square", "seed": 8}]
FRAME = pd.DataFrame(ROWS)
FORMS: dict[str, Callable[[], object]] = {
    "a list of dicts": lambda: ROWS,
    "a tuple": lambda: tuple(ROWS),
    "a generator": lambda: (row for row in ROWS),
    "a map": lambda: map(dict, ROWS),
    "a DataFrame": lambda: FRAME,
    "a DataFrame with an index": lambda: FRAME.set_index(pd.Index([3, 5])),
    "a DataFrame with categories": lambda: FRAME.astype({"prompt": "category"}),
    "a DataFrame of Arrow's types": lambda: FRAME.convert_dtypes(dtype_backend="pyarrow"),
    "a DataFrame with gaps": lambda: FRAME.assign(steps=[np.nan, None], image=[None, pd.NA]),
    "a DataFrame with numbers as ids": lambda: FRAME.assign(id=["a", "b"], seed=FRAME["seed"].astype(float)),
    "an Arrow table": lambda: pa.Table.from_pylist(ROWS),
    "a batch of Arrow": lambda: pa.RecordBatch.from_pylist(ROWS),
    "numbers of NumPy": lambda: [row | {"seed": np.uint16(row["seed"]), "id": np.str_(row["id"])} for row in ROWS],
    "records of NumPy": lambda: [dict(zip(FRAME.columns, record, strict=True)) for record in FRAME.to_numpy()],
    "dicts that lack nothing but None": lambda: [row | {"image": None, "labels": None} for row in ROWS],
}


@pytest.mark.parametrize("name", FORMS)
def test_the_same_rows_in_all_that_holds_them(tmp_path, name):
    found = flowcache.preview(FORMS[name](), output=str(tmp_path / "out"))
    assert [(row.video_id, row.state) for row in found.rows] == [("a", "new"), ("b", "new")]


def test_tables_of_other_libraries(tmp_path):
    output = str(tmp_path / "out")
    polars = pytest.importorskip("polars")
    assert len(flowcache.preview(polars.DataFrame(ROWS), output=output).rows) == 2
    datasets = pytest.importorskip("datasets")
    assert len(flowcache.preview(datasets.Dataset.from_list(ROWS), output=output).rows) == 2
    assert len(flowcache.preview(datasets.Dataset.from_list(ROWS).to_iterable_dataset(), output=output).rows) == 2


ODD: dict[str, tuple[object, str]] = {
    "a number": (7, "requests: is int; accepted: a manifest's path or URL, a row, or rows"),
    "nothing": ([], "requests: is empty; accepted: at least one row"),
    "None": (None, "requests: is NoneType; accepted"),
    "bytes": (b"a red circle", "requests: is bytes; accepted"),
    "columns for rows": ({"prompt": ["x", "y"]}, "requests row 1: prompt: got a list of 2 entries"),
    "a number among prompts": (["x", 7], "requests row 2: is int; accepted: an object or a prompt"),
    "a typo": ([{"prompt": "x", "sede": 7}], "requests row 1: sede: is no known field; did you mean 'seed'?"),
    "a blank prompt": ([{"prompt": " "}], "requests row 1: prompt: is blank"),
    "a rate": ([{"prompt": "x", "fps": Fraction(1, 2)}], "requests row 1: fps: got Fraction(1, 2); accepted: a whole"),
    "an object": ([{"prompt": "x", "seed": object()}], "requests row 1: seed: got <object object"),
    "a path to nothing": (Path("none.jsonl"), "none.jsonl: does not exist"),
    "a name of nothing": ("none.jsonl", "none.jsonl: does not exist"),
}


@pytest.mark.parametrize("name", ODD)
def test_faults_are_an_input_error_with_the_sentences_of_the_command_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    requests, says = ODD[name]
    with pytest.raises(flowcache.InputError) as caught:
        flowcache.preview(requests, output="out")
    assert says in str(caught.value) and caught.value.exit_code == 2 and caught.value.problems
    with pytest.raises(flowcache.InputError) as planned:
        flowcache.plan(requests)
    assert says in str(planned.value)


def test_one_row_prompts_and_manifests(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("m.txt").write_text("a red circle\na blue square\n")
    path = Path("m.txt")
    for requests, count in ((ROWS[0], 1), (["a red circle"], 1), (path, 2), ("m.txt", 2), ([path], 2)):
        assert len(flowcache.preview(requests, output="out").rows) == count
    assert flowcache.plan(ROWS).cost.videos == 2


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), 23.976, Decimal("23.976"), "24000/1001", np.float64(23.976)])
def test_rates_in_all_types(tmp_path, fps):
    requests, problems, _, _ = flowcache.api.check([ROWS[0] | {"fps": fps}], flowcache.RowDefaults())
    assert not problems and requests[0].fps == Fraction(24000, 1001)


def picture(form: str, mode: str = "RGB", **save) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        Image.new(mode, (80, 60)).save(folder / f"a.{form}", **save)
        return f"a.{form}"

    return make


def written(name: str, data: bytes) -> Callable[[Path], str]:
    return lambda folder: (folder / name).write_bytes(data) and name


def video(name: str, codec: str = "libx264", rate=24, frames: int = 24, **codec_context) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            for field, value in codec_context.items():
                setattr(stream.codec_context, field, value)
            for number in range(frames):
                pixels = np.full((64, 64, 3), 8 * number, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            out.mux(stream.encode(None))
        return name

    return make


def playlist(folder: Path) -> str:
    Studio(Store(str(folder / "night")), (request("cat", 2),)).run()
    return "night/media/cat/index.m3u8"


def unfinished(folder: Path) -> str:
    path = folder / playlist(folder)
    path.write_text(path.read_text().replace("#EXT-X-ENDLIST\n", ""))
    return str(path)


EXIF = Image.Exif()
EXIF[0x0112] = 6
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
FILM = Fraction(24000, 1001)
PICTURES: dict[str, tuple[Callable[[Path], str], str]] = {
    "PNG": (picture("png"), ""),
    "PNG with alpha": (picture("png", "RGBA"), ""),
    "PNG of a palette": (picture("png", "P"), ""),
    "PNG of 16 bits": (picture("png", "I;16"), ""),
    "JPEG": (picture("jpg"), ""),
    "JPEG turned": (picture("jpg", exif=EXIF), ""),
    "JPEG with a profile": (picture("jpg", icc_profile=LAB), ""),
    "JPEG for print": (picture("jpg", "CMYK"), ""),
    "grey JPEG": (picture("jpg", "L"), ""),
    "WebP": (picture("webp"), ""),
    "GIF": (picture("gif", "P"), ""),
    "BMP": (picture("bmp"), ""),
    "TIFF": (picture("tif"), ""),
    "TIFF of 16 bits": (picture("tif", "I;16"), ""),
    "TIFF of floats": (lambda folder: Image.fromarray(GREY).save(folder / "a.tif") or "a.tif", ""),
    "TIFF of floats in colour": (written("a.tif", float_tiff(np.stack([GREY] * 3, -1))), ""),
    "TIFF of floats to 255": (written("a.tif", float_tiff(np.stack([GREY] * 3, -1) * 255)), "has floats from 0 to 255"),
    "SVG": (written("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "is no picture that can be opened"),
    "HEIC": (written("a.heic", b"\0\0\0\x18ftypheic" + bytes(90)), "is no picture that can be opened"),
    "a web page": (written("a.png", b"<!DOCTYPE html><html>"), "is no picture that can be opened"),
    "an empty file": (lambda folder: (folder / "a.png").touch() or "a.png", "is empty"),
    "nothing": (lambda folder: "a.png", "'a.png' does not exist; accepted: a picture"),
    "a scheme of nobody": (lambda folder: "ftp://host/a.png", "has the scheme 'ftp'; accepted: a path or"),
    "this machine": (lambda folder: "http://127.0.0.1:9/a.png", "--allow-private-media"),
}
VIDEOS: dict[str, tuple[Callable[[Path], str], str]] = {
    "MP4": (video("a.mp4"), ""),
    "MOV": (video("a.mov"), ""),
    "Matroska": (video("a.mkv"), ""),
    "WebM": (video("a.webm", "libvpx"), ""),
    "AVI": (video("a.avi", "mpeg4"), ""),
    "a transport stream": (video("a.ts"), ""),
    "film on television": (video("a.mp4", rate=FILM), ""),
    "television": (video("a.mp4", rate=Fraction(30000, 1001)), ""),
    "a run's own playlist": (playlist, ""),
    "that of an unfinished video": (unfinished, "is the playlist of a video that is not finished"),
    "a GIF": (picture("gif", "P"), "is no video that can be opened"),
    "HDR": (video("a.mp4", color_trc=16), "is of high dynamic range (PQ)"),
    "one of three frames": (video("a.mp4", frames=3), "has 3 frames at 24000/1001 fps; accepted: at least 9"),
    "somebody's playlist": (written("a.m3u8", b"#EXTM3U\nhttp://169.254.169.254/x\n"), "which is no file beside it"),
}


MEDIA = [*(("image", name) for name in PICTURES), *(("video", name) for name in VIDEOS)]


@pytest.mark.parametrize(("field", "name"), MEDIA)
def test_pictures_and_videos(tmp_path, monkeypatch, field, name):
    monkeypatch.chdir(tmp_path)
    make, says = (PICTURES if field == "image" else VIDEOS)[name]
    fps = 8 if "own" in name else 23.976
    row = {"id": "a", "prompt": "a red circle", "fps": fps, field: make(tmp_path)}
    if says:
        with pytest.raises(flowcache.InputError) as caught:
            flowcache.preview([row], output="out")
        assert says in str(caught.value) and f"requests row 1: {field}: " in str(caught.value)
    else:
        assert [one.state for one in flowcache.preview([row], output="out").rows] == ["new"]


def test_pictures_as_objects_paths_and_from_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    picture("png")(tmp_path)
    png = io.BytesIO()
    Image.new("RGB", (64, 64)).save(png, "PNG")
    given = [Image.new("RGB", (64, 64)), Path("a.png"), "~/a.png", tmp_path / "a.png", {"bytes": png.getvalue()}]
    rows = [{"prompt": f"circle {number}", "image": image} for number, image in enumerate(given)]
    assert len(flowcache.preview(rows, output="out").rows) == len(given)
