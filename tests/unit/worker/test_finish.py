"""What a finishing function is given and what is kept of it, over a small run's real chunks; and the example."""

import io
import json
import os
import uuid
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from examples import finishing
from flowcache.inputs.options import RunOptions
from flowcache.inputs.pixels import rgb
from flowcache.scheduler.stock import finishing as unit_of
from flowcache.storage import layout
from flowcache.storage.commits import read_commits
from flowcache.storage.objects.store import Store
from flowcache.storage.verify import verify
from flowcache.worker.finish import FinishFailed, finish
from flowcache.worker.task import Task, WorkerSettings
from flowcache.worker.worker import RankWorker
from tests.unit.storage.samples import CHUNK, FPS, HEIGHT, WIDTH, Studio, pixels, plan, request


@pytest.fixture
def studio():
    made = Studio(Store(f"memory://{uuid.uuid4().hex}"), (request("cat", 2),))
    made.run()
    return made


def finished(studio, function: str):
    asked = studio.requests[0]
    task = Task(asked, unit_of(asked, tuple(plan([asked]))), None, True, finish=True)
    return finish(studio.store, task, WorkerSettings("run", "hash", RunOptions(finish=function)), "gang-1")


SEEN = []


def look(video) -> None:
    SEEN.append(video)
    shown = list(video.pictures())
    with av.open(str(video.file)) as film:
        whole = [rgb(frame) for frame in film.decode(video=0)]
    assert len(shown) == len(whole) == video.frames and shown[0].dtype == np.uint8
    assert all((one == other).all() for one, other in zip(shown, whole, strict=True))
    (video.folder / "sub").mkdir()
    (video.folder / "sub" / "n.txt").write_text(str(len(shown)))


def empties(video) -> None:
    (video.folder / "link").symlink_to("/etc/passwd")


def test_a_function_sees_the_whole_video_and_its_files_are_committed(studio):
    marker = finished(studio, f"{__name__}:look")
    (file,) = marker.files
    assert file.name == "sub/n.txt" and studio.store.get(file.key) == b"16" and marker.video_id == "cat"
    video = SEEN.pop()
    assert (video.id, video.width, video.height, video.fps, video.frames) == ("cat", WIDTH, HEIGHT, FPS, 4 * CHUNK)
    assert video.request["shots"][0]["prompt"] == "a cat moves" and video.labels["team"] == "red"
    assert not video.folder.exists()
    assert finished(studio, f"{__name__}:look") == marker and not SEEN  # it is there: not called again
    problems = verify(studio.store).problems  # the run is marked finished, and its table is older
    assert all("meta/" in problem.key for problem in problems)


def test_a_link_is_not_followed_and_nothing_is_committed(studio):
    with pytest.raises(FinishFailed, match="it wrote 'link'; accepted: plain files"):
        finished(studio, f"{__name__}:empties")
    assert not read_commits(studio.store).finished


def exits(video) -> None:
    raise SystemExit(3)


def interrupts(video) -> None:
    raise KeyboardInterrupt


def mute(video) -> None:
    class Mute(Exception):
        def __str__(self):
            raise ValueError

    raise Mute


def elsewhere(video) -> None:
    video.folder.rmdir()
    video.folder.symlink_to("/etc")


def gone(video) -> None:
    video.folder.rmdir()


class Later:
    async def __call__(self, video) -> None:
        pass


later = Later()


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("exits", "Exited: it called sys.exit\\(3\\)"),
        ("interrupts", "Exited: it raised KeyboardInterrupt$"),
        ("mute", "Mute: Mute"),
        ("elsewhere", "the folder that it was given is gone, or is another one"),
        ("gone", "the folder that it was given is gone, or is another one"),
        ("later", "it returned a coroutine, and did nothing yet; accepted: a plain function"),
    ],
)
def test_whatever_it_does_is_its_fault_and_ends_no_rank(studio, name, said):
    with pytest.raises(FinishFailed, match=said):
        finished(studio, f"{__name__}:{name}")
    assert not read_commits(studio.store).finished


def wanders(video) -> None:
    os.chdir(video.folder)
    (video.folder / "n.txt").write_text("here")
    video.folder, video.id = None, "../other"


def test_where_it_goes_and_what_it_changes_stays_with_it(studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    marker = finished(studio, f"{__name__}:wanders")
    assert marker.video_id == "cat" and [file.name for file in marker.files] == ["n.txt"]
    assert os.getcwd() == str(tmp_path)


def times(video) -> None:
    (video.folder / "times.json").write_text(json.dumps([video.seconds, str(video.fps)]))


def test_seconds_of_a_fractional_rate_are_a_plain_number():
    made = Studio(Store(f"memory://{uuid.uuid4().hex}"), (request("cat", 2, fps=Fraction(24000, 1001)),))
    made.run()
    (file,) = finished(made, f"{__name__}:times").files
    assert json.loads(made.store.get(file.key)) == [pytest.approx(16 * 1001 / 24000), "24000/1001"]


@pytest.mark.parametrize("damage", ["chunk", "marker", "lost"])
def test_a_damaged_video_is_said_to_be(studio, damage):
    marker = read_commits(studio.store).markers["cat"][1]
    key = layout.marker_key("cat", 1) if damage == "marker" else marker.chunks[0].key
    if damage == "lost":
        studio.store.delete(key)
    else:
        studio.store.put(key, studio.store.get(key)[:-20] + bytes(20))
    with pytest.raises(FinishFailed, match="damaged|does not exist"):
        finished(studio, f"{__name__}:look")
    SEEN.clear()


def test_what_can_not_be_called_keeps_the_rank_from_starting():
    settings = WorkerSettings("run", "hash", RunOptions(finish="no_such_module:finish"))
    with pytest.raises(Exception, match="no_such_module"):
        RankWorker(Store("memory://finish"), settings, "gang", 0, 1).join_group(None)


def test_the_example_makes_a_poster_and_a_silent_track(studio):
    marker = finished(studio, "examples.finishing:poster_and_sound")
    poster, film = (studio.store.get(file.key) for file in marker.files)
    shown = np.asarray(Image.open(io.BytesIO(poster))).astype(int)
    seed = studio.requests[0].seed
    middle = [np.abs(shown - pixels(seed, start, 1)[0]).mean() for start in range(4 * CHUNK)]
    assert 4 * CHUNK // 3 <= int(np.argmin(middle)) < 2 * 4 * CHUNK // 3
    with av.open(io.BytesIO(film)) as made:
        assert made.metadata["digital_source_type"].endswith("trainedAlgorithmicMedia")
        sound = np.concatenate([frame.to_ndarray() for frame in made.decode(audio=0)], axis=1)
        assert made.streams.video[0].frames == 16
    assert not sound.any() and abs(sound.shape[1] / finishing.RATE - 16 / FPS) < 0.05


@pytest.mark.parametrize("loud", [0.01, 0.5])
def test_real_sound_comes_out_at_broadcast_level(loud):
    times = np.arange(8 * finishing.RATE) / finishing.RATE
    tone = np.stack([loud * np.sin(2 * np.pi * 440 * times)] * 2).astype(np.float32)
    blocks = np.split(tone, 8, axis=1)
    made = np.concatenate([frame.to_ndarray() for frame in finishing.normalised(iter(blocks))], axis=1)
    assert made.shape == tone.shape
    level = 20 * np.log10(np.sqrt((made**2).mean()))
    assert abs(level - -25.3) < 0.5  # of a sine in both channels at 440 Hz, that is -23 LUFS
