"""Pictures and videos as a request wants them."""

import av
import numpy as np
import pytest
from PIL import Image

from flowcache.errors import MediaError
from flowcache.inputs.sandbox import Sandbox
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.scheduler.protocols import kind_of
from flowcache.worker import given
from flowcache.worker.given import clip, picture
from tests.hostile.servers import sends, serving

MAGI = ModelSpec("m", "magi", "path", "digest", chunk=6, window=60, overlap=24, channels=16, causal=False)
SKYREELS = ModelSpec("s", "skyreels", "path", "digest", chunk=5, window=25, overlap=5, channels=16)


def request(**fields):
    return RenderRequest("v", (Shot("a", 24),), 32, 16, 24, 1, 3.0, 2, "m", {"name": "off"}, **fields)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(most=1) as found:
        yield found


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """40 frames at 24 a second, each brighter than the one before it: 64 x 64, the left half black."""
    path = tmp_path_factory.mktemp("given") / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "bgr0"
        for number in range(40):
            frame = np.full((64, 64, 3), 6 * number, np.uint8)
            frame[:, :32] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def numbers(frames):
    return [int(frame[8, -1, 0]) // 6 for frame in frames]


def test_a_video_is_continued_from_its_end_or_its_start(video, sandbox):
    """MAGI-1's start is 32 frames, as officially; its end as many whole chunks as there are, up to four."""
    assert numbers(clip(request(video=video), MAGI, sandbox)) == list(range(16, 40))
    assert numbers(clip(request(video=video, video_from="end"), MAGI, sandbox)) == list(range(16, 40))
    assert numbers(clip(request(video=video, video_from="start"), MAGI, sandbox)) == list(range(32))
    assert numbers(clip(request(video=video), SKYREELS, sandbox)) == list(range(23, 40))
    assert numbers(clip(request(video=video, video_from="start"), SKYREELS, sandbox)) == list(range(17))
    shorter = request(video=video, video_from="start", overlap_history=37)
    assert numbers(clip(shorter, SKYREELS.asked(vars(shorter)), sandbox)) == list(range(37))
    assert clip(request(), SKYREELS, sandbox) is None


def test_pictures_and_videos_come_to_size_as_the_row_or_the_family_says(video, tmp_path, sandbox):
    """A square of which the left half is black, in frames twice as wide as high."""
    square = np.zeros((64, 64, 3), np.uint8)
    square[:16, 32:], square[16:, 32:] = 120, 240  # the first is cut off by "crop"
    Image.fromarray(square).save(tmp_path / "a.png")
    black = {"crop": 16, "stretch": 16, "pad": 16 + 8}  # columns; 8 more of the right side's border
    for fit, columns in black.items():
        wanted = request(image=str(tmp_path / "a.png"), end_image=str(tmp_path / "a.png"), fit=fit)
        for end in (False, True):
            shown = picture(wanted, SKYREELS, sandbox, end)
            assert shown.shape == (1, 16, 32, 3) and (shown[0, 8, :, 0] < 60).sum() == columns
        moving = clip(request(video=video, fit=fit), SKYREELS, sandbox)
        assert (moving[-1, 8, :, 0] < 60).sum() == columns
    of_family = [picture(request(image=str(tmp_path / "a.png")), spec, sandbox) for spec in (SKYREELS, MAGI)]
    assert np.array_equal(of_family[0], picture(request(image=str(tmp_path / "a.png"), fit="crop"), MAGI, sandbox))
    stretched = request(image=str(tmp_path / "a.png"), fit="stretch")
    assert np.array_equal(of_family[1], picture(stretched, SKYREELS, sandbox))
    assert not np.array_equal(*of_family) and picture(request(), SKYREELS, sandbox) is None


def test_what_cannot_be_loaded_is_named(tmp_path, sandbox):
    with pytest.raises(MediaError, match=r"nowhere\.png.*does not exist"):
        picture(request(image=str(tmp_path / "nowhere.png")), SKYREELS, sandbox)
    with pytest.raises(MediaError, match=r"nowhere\.mp4.*does not exist"):
        clip(request(video=str(tmp_path / "nowhere.mp4")), SKYREELS, sandbox)


@pytest.mark.parametrize("status", [503, 429, None])
def test_a_host_that_is_away_for_a_moment_costs_no_video(tmp_path, monkeypatch, status):
    """None: it closes the connection."""
    monkeypatch.setattr(given, "PAUSES", (0.01, 0.01))
    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")
    answers = [lambda to: to.connection.close() if status is None else sends(b"", status)(to)] * 2
    answers.append(sends((tmp_path / "a.png").read_bytes()))
    with serving(lambda to: answers.pop(0)(to)) as server, Sandbox(private=True, most=1) as sandbox:
        asked = request(image=f"{server.url}/a.png")
        assert picture(asked, SKYREELS, sandbox).shape == (1, 16, 32, 3)
    with serving(sends(b"", status or 503)) as server, Sandbox(private=True, most=1) as sandbox:
        with pytest.raises(MediaError, match="a.png: cannot be read") as told:
            picture(request(image=f"{server.url}/a.png"), SKYREELS, sandbox)
        assert kind_of(told.value) == "work" and len(server.asked) == 3


def test_what_lies_no_more_at_a_host_is_not_asked_for_again():
    with serving(sends(b"", 404)) as server, Sandbox(private=True, most=1) as sandbox:
        with pytest.raises(MediaError, match="does not exist"):
            picture(request(image=f"{server.url}/a.png"), SKYREELS, sandbox)
        assert len(server.asked) == 1
