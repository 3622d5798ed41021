"""A mark in the frames and a finish of each video, by the command line on a gang of two ranks, and what readers see."""

import io

import av
import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

from flowcache.export.film import find
from flowcache.storage.commits import list_commits, read_commits
from flowcache.storage.finish_marker import read_finishes
from flowcache.storage.joined import joined
from flowcache.storage.objects.store import Store
from tests.e2e.rows import row

MARK, FINISH = "tests.e2e.hooks:invert", "examples.finishing:poster_and_sound"
ROWS = [row("long", frames=69, width=64, height=64), row("short", frames=9)]  # two segments, and one


def frames(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]).astype(int)


def films(root) -> dict[str, np.ndarray]:
    store = Store(str(root))
    return {name: frames(joined(store, markers)) for name, markers in read_commits(store).markers.items()}


def test_marked_and_finished_on_rank_0_of_a_gang(render, flowcache, tmp_path):
    plain = render(ROWS[1:], to=tmp_path / "plain")
    assert plain.code == 0, plain.err
    marked = render(ROWS, "--gang", "2", "--watermark", MARK, "--finish", FINISH)
    assert marked.code == 0, marked.err
    found, wanted = films(tmp_path / "out"), films(tmp_path / "plain")
    assert len(found["long"]) == 69 and found["short"].shape == wanted["short"].shape
    assert np.abs(255 - found["short"] - wanted["short"]).mean() < 4  # tests/unit/worker/test_mark.py: of all segments
    store = Store(str(tmp_path / "out"))
    finishes, _ = read_finishes(store, list_commits(store).finished)
    for name, video in found.items():
        poster, film = (store.get(file.key) for file in finishes[name][0].files)
        assert Image.open(io.BytesIO(poster)).size == (64, 64)
        assert (frames(film) == video).all()
        with av.open(io.BytesIO(film)) as made:
            sound = np.concatenate([frame.to_ndarray() for frame in made.decode(audio=0)], axis=1)
            assert made.metadata["digital_source_type"].endswith("trainedAlgorithmicMedia")
        assert not sound.any() and abs(sound.shape[1] / 48_000 - len(video) / 12) < 0.1
    rows = ds.dataset(tmp_path / "out" / "meta" / "videos").to_table().to_pylist()
    assert all([file["file"] for file in one["finishes"]] == ["poster.jpg", "video.mp4"] for one in rows)
    assert {one["watermark"] for one in rows} == {MARK} and {film.watermark for film in find(store).films} == {MARK}
    assert flowcache("verify", tmp_path / "out").code == 0
    assert f"2 finished by {FINISH}" in " ".join(flowcache("status", tmp_path / "out").out.split())
    again = render(ROWS, "--watermark", MARK, "--finish", FINISH)
    assert again.code == 0 and again.json["rendered"] == 0
    other = render(ROWS)
    assert other.code == 2 and f"watermark was {MARK} and is off" in other.out
    assert flowcache("export", tmp_path / "out", "--to", tmp_path / "files", "--finishes").code == 0
    assert sorted(path.name for path in (tmp_path / "files").iterdir() if path.is_file()) == [
        "long-poster.jpg", "long-video.mp4", "long.mp4", "short-poster.jpg", "short-video.mp4", "short.mp4",
    ]  # fmt: skip


def test_a_finish_that_fails_is_told_by_code_and_cause_and_the_video_plays(render, flowcache, tmp_path):
    failed = render(ROWS[1:], "--finish", "tests.e2e.hooks:fails")
    assert failed.code == 3 and failed.json["done"] == ["short"]
    assert "no taste for short" in failed.json["failed"]["short"]
    assert flowcache("verify", tmp_path / "out").code == 0 and films(tmp_path / "out")["short"].shape[0] == 9
    assert "the finish of 1 failed" in " ".join(flowcache("status", tmp_path / "out").out.split())
    assert render(ROWS[1:], "--finish", FINISH).code == 0


@pytest.mark.parametrize("option", ["--watermark", "--finish"])
def test_what_is_not_there_is_bad_input(render, tmp_path, option):
    wrong = render(ROWS[1:], option, "no_such_module:function")
    assert wrong.code == 2 and "No module named 'no_such_module'" in wrong.out and option in wrong.out
    assert not (tmp_path / "out").exists()
