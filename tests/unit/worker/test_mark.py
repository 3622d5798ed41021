"""An invisible mark: what it is given, what it must give back, and that nothing which is continued carries it."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flowcache.families.registry import load_model
from flowcache.inputs.options import RunOptions
from flowcache.inputs.segments import plan
from flowcache.records import RenderRequest, Shot
from flowcache.scheduler.protocols import kind_of
from flowcache.storage import layout
from flowcache.storage.media import decode
from flowcache.storage.objects.store import Store
from flowcache.worker.mark import Marked, Marker, MarkFailed
from flowcache.worker.task import Task, WorkerSettings
from flowcache.worker.worker import RankWorker

FRAMES = np.arange(3 * 8 * 16 * 3, dtype=np.uint32).astype(np.uint8).reshape(3, 8, 16, 3)
PLACE = ("cat", 1, 4, 21, 12)  # video, segment, chunk, first frame, fps
USERS = """
seen = []
def invert(frames, where):
    seen.append(where)
    frames[:] = 255 - frames
    return frames
def smaller(frames, where):
    return frames[:, :4]
def floats(frames, where):
    return frames / 255
def nothing(frames, where):
    pass
def fails(frames, where):
    raise KeyError("key")
def exits(frames, where):
    raise SystemExit(2)
def full(frames, where):
    raise MemoryError("no room")
"""
TRUSTMARK = """
from PIL import Image, ImageChops
class TrustMark:
    class Encoding:
        BCH_SUPER, BCH_5, BCH_4, BCH_3 = range(4)
    def __init__(self, use_ECC=True, verbose=True, secret_len=100, device="", model_type="Q", encoding_type=1):
        self.made = use_ECC, device, model_type, encoding_type
    def schemaCapacity(self):
        return 61
    def encode(self, in_cover_image, string_secret, MODE="text", WM_STRENGTH=1.0, WM_MERGE="bilinear"):
        assert MODE == "binary" and len(string_secret) == 61 and set(string_secret) <= set("01")
        assert isinstance(in_cover_image, Image.Image) and self.made == (True, "cpu", "Q", self.Encoding.BCH_5)
        return ImageChops.invert(in_cover_image)
"""
VIDEOSEAL = """
import torch
class Model(torch.nn.Module):
    def get_random_msg(self, bsz=1):
        return torch.randint(0, 2, (bsz, 256))
    def embed(self, imgs, msgs=None, is_video=True, **how):
        assert is_video and imgs.dtype == torch.float32 and imgs.shape[1] == 3 and msgs.shape == (1, 256)
        assert 0 <= imgs.min() and imgs.max() <= 1
        return {"imgs_w": 1 - imgs, "msgs": msgs}
def load(card):
    assert card == "videoseal"
    return Model()
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Stand-ins of the libraries' interfaces, and a user's module."""
    for name, text in (("users_marks", USERS), ("trustmark", TRUSTMARK), ("videoseal", VIDEOSEAL)):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("users_marks", "trustmark", "videoseal"):
        sys.modules.pop(name, None)


def test_a_mark_is_told_where_its_frames_stand_and_gets_a_copy(installed):
    before = FRAMES.copy()
    assert (Marker("users_marks:invert", "ours", "cpu")(FRAMES, *PLACE) == 255 - before).all()
    assert (FRAMES == before).all()
    assert sys.modules["users_marks"].seen == [Marked("cat", 1, 4, 21, 12, "ours", "cpu")]


@pytest.mark.parametrize("name", ["trustmark", "videoseal"])
def test_the_adapters_call_their_libraries_as_these_are_called(installed, name):
    found = Marker(name, None, "cpu")(FRAMES, *PLACE)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    assert (found == 255 - FRAMES).all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smaller", r"got uint8 \[3, 4, 16, 3\]; accepted: uint8 \[3, 8, 16, 3\]"),
        ("floats", r"got float64 \[3, 8, 16, 3\]; accepted: uint8"),
        ("nothing", "got NoneType; accepted"),
        ("fails", "KeyError: 'key'"),
        ("exits", r"it called sys.exit\(2\)"),
    ],
)
def test_what_is_no_marked_copy_is_its_videos_trouble_and_says_why(installed, name, said):
    with pytest.raises(MarkFailed, match=rf"watermark users_marks:{name} on frames 21 to 23: .*{said}") as caught:
        Marker(f"users_marks:{name}", None, "cpu")(FRAMES, *PLACE)
    assert kind_of(caught.value) == "work"


def test_the_documented_function_is_a_mark(tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "hooks.md").read_text()
    (tmp_path / "documented_marks.py").write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    marker = Marker("documented_marks:mark", None, "cpu")
    found = marker(FRAMES, *PLACE)
    assert (found == marker(FRAMES, *PLACE)).all() and 0 < np.abs(found.astype(int) - FRAMES).mean() < 1
    sys.modules.pop("documented_marks")


def test_memory_that_runs_out_is_nobodys_fault(installed):
    with pytest.raises(MemoryError):
        Marker("users_marks:full", None, "cpu")(FRAMES, *PLACE)


def test_what_can_not_be_loaded_keeps_the_rank_from_starting():
    settings = WorkerSettings("run", "hash", RunOptions(watermark="no_such_module:mark"))
    with pytest.raises(MarkFailed, match="watermark no_such_module:mark can't be loaded.*No module named"):
        RankWorker(Store("memory://mark"), settings, "gang", 0, 1).join_group(None)
    RankWorker(Store("memory://mark"), settings, "gang", 1, 1).join_group(None)  # marks nothing, whatever it has


def test_bits_are_those_of_the_payload_or_of_the_video():
    at = Marked("cat", 0, 0, 0, 24, None, "cpu")
    bits = at.bits(600)
    assert len(bits) == 600 and at.bits(61) == bits[:61] and 200 < sum(bits) < 400
    assert replace(at, segment=3, start_frame=99).bits(61) == bits[:61]
    assert replace(at, video="dog").bits(61) != bits[:61] != replace(at, payload="ours").bits(61)
    assert replace(at, payload="ours").bits(61) == replace(at, video="dog", payload="ours").bits(61)


def test_frames_are_marked_once_and_what_is_continued_never(installed, tmp_path):
    """Two windows: the second segment's frames, unmarked again, are those of a run without marks."""
    request = RenderRequest(
        "v", (Shot("a red circle", 57 + 24),), 64, 64, 12, 1, 3.0, 2, "tiny-skyreels", {"name": "off"}
    )
    segments, video, states = plan(request, load_model("tiny-skyreels").spec), {}, {}
    for name, options in (("plain", RunOptions()), ("marked", RunOptions(watermark="users_marks:invert"))):
        store = Store(str(tmp_path / name))
        worker, parent = RankWorker(store, WorkerSettings("run", "hash", options), "gang", 0, 1), None
        chunks = []
        for segment in segments:
            *_, parent = worker.render(Task(request, segment, parent, segment is segments[-1]))
            chunks += parent.chunks
            if parent.state_key:
                states.setdefault(segment.index, []).append(store.get(parent.state_key))
        init = store.get(layout.init_key("v"))
        video[name] = np.stack([f for f, _ in decode(init, [store.get(chunk.key) for chunk in chunks])]).astype(int)
    assert len(states) == 1 and all(one == other for one, other in states.values())
    assert len(video["plain"]) == 81
    assert np.abs(255 - video["marked"] - video["plain"]).mean() < 3  # but for the codec's losses
    assert np.abs(video["marked"] - video["plain"]).mean() > 50
