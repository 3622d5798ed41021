"""What one rank does, without Ray."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from flowcache.cache.policy import Policy
from flowcache.errors import MediaError, OutOfMemory, StoreError
from flowcache.families.registry import load_model
from flowcache.inputs.options import RunOptions
from flowcache.inputs.segments import plan
from flowcache.models.text import EncodedTexts
from flowcache.parallel.sharding import load_sharded
from flowcache.records import RenderRequest, Shot
from flowcache.sampling.records import NotFinite
from flowcache.scheduler.protocols import kind_of
from flowcache.storage.objects.store import Store
from flowcache.worker import worker as worker_module
from flowcache.worker.guard import Guard
from flowcache.worker.prefetch import Abandoned
from flowcache.worker.renderer import RenderedChunk, SegmentRenderer
from flowcache.worker.task import Flawed, WorkerSettings
from flowcache.worker.worker import RankWorker, Task
from tests.hostile.servers import sends, serving


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-skyreels")


@pytest.fixture
def worker():
    return RankWorker(Store("memory://worker"), WorkerSettings("run", "hash"), "gang", 0, 1)


def tasks(**fields):
    """Three segments: a shot of two windows, and one that starts fresh."""
    shots = Shot("a red circle", 57 + 24), Shot("a blue square", 9)
    request = RenderRequest("v", shots, 64, 64, 12, 1, 3.0, 2, "tiny-skyreels", {"name": "off"}, **fields)
    return request, [Task(request, segment, None, False) for segment in plan(request, load_model("tiny-skyreels").spec)]


def test_the_first_segment_begins_and_the_last_one_ends_with_a_picture(worker, model, tmp_path):
    for name, colour in (("first", (200, 40, 40)), ("last", (40, 40, 200))):
        Image.new("RGB", (80, 64), colour).save(tmp_path / f"{name}.png")
    _, three = tasks(image=str(tmp_path / "first.png"), end_image=str(tmp_path / "last.png"))
    assert [worker._end(model, task) is None for task in three] == [True, True, False]
    starts = [worker._before(model, task)[0] for task in (three[0], three[2])]
    end = worker._end(model, three[2])
    assert starts[0].shape == end.shape == (24, 1, 8, 8) and starts[1] is None
    decode = model.codec.stream()
    decode(starts[0])
    blue = decode(end)
    assert blue.shape[1] == 4
    wanted = torch.tensor([40, 40, 200])[:, None, None, None] / 127.5 - 1
    assert np.abs(blue.numpy() - wanted.numpy()).mean() < 0.1
    assert worker._end(model, tasks()[1][2]) is None


@pytest.fixture
def group(tmp_path):
    """The default process group, of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("asked", [False, True])
def test_weights_are_shared_out_where_that_was_asked_for(group, asked, monkeypatch):
    given = {}
    monkeypatch.setattr("flowcache.worker.worker.load_model", lambda *args, **options: given.update(options))
    settings = WorkerSettings("run", "hash", RunOptions(shard_weights=asked))
    RankWorker(Store("memory://worker"), settings, "gang", 0, 2)._open("tiny-skyreels")
    assert getattr(given["load"], "func", None) is (load_sharded if asked else None)


class Refusing(Store):
    """Takes no chunk 1 while `full`."""

    full = True

    def put(self, key, data):
        if self.full and "/00001." in key:
            raise StoreError("no room")
        super().put(key, data)


def test_a_refused_upload_ends_the_segment_at_once_and_leaves_the_rank_sound(tmp_path):
    torch.set_num_threads(1)
    store, before = Refusing(str(tmp_path)), set(threading.enumerate())
    worker = RankWorker(store, WorkerSettings("run", "hash"), "gang", 0, 1)
    task, seen = tasks()[1][0], []
    with pytest.raises(StoreError, match="no room"):
        for event in worker.render(task):
            seen.append(event.chunk)
    (own,) = set(threading.enumerate()) - before
    assert seen == [0] and own.name.startswith("denoise")  # which waits for the next segment
    store.full = False
    *chunks, marker = worker.render(task)
    assert [chunk.chunk for chunk in chunks] == [0, 1, 2, 3, 4] and marker.chunks == tuple(chunks)


def test_a_picture_that_changed_is_named(worker, model, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "end.png")
    _, three = tasks(end_image=str(tmp_path / "end.png"), end_image_sha256="0" * 64)
    with pytest.raises(MediaError, match=r"end\.png: is not the file any more"):
        worker._end(model, three[2])


def test_media_at_private_addresses_are_for_runs_that_allow_them(worker, model, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with serving(sends((tmp_path / "a.png").read_bytes())) as server:
        _, three = tasks(image=f"{server.url}/a.png", end_image=f"{server.url}/b.png")
        for begin in (lambda: worker._before(model, three[0]), lambda: worker._end(model, three[2])):
            with pytest.raises(MediaError, match="no public address; accepted: public ones, or --allow-private-media"):
                begin()
        assert server.asked == []
        worker.settings = WorkerSettings("run", "hash", RunOptions(allow_private_media=True))
        assert worker._before(model, three[0])[0] is not None and worker._end(model, three[2]) is not None
        assert server.asked == ["/a.png", "/b.png"]


class Pixels:
    """A renderer whose second chunk is black; chunk `dies` is not finite."""

    text_seconds, guard = 0.25, Guard(Policy("off"), Policy("off"), None)

    def __init__(self, task, reused: int, dies: int | None = None, spares: bool = False):
        self.spares = spares
        self.reused, self.dies, self.reuses, self.first = reused, dies, task.reuse, task.segment.first_chunk

    def chunks(self):
        for place in range(3):
            if place == self.dies:
                raise NotFinite(place)
            bright = 0 if place == 1 else 200
            frames = np.full((4, 16, 16, 3), bright, np.uint8)
            frames[0] //= 2
            yield RenderedChunk(self.first + place, 4 * place, frames, 2, self.reused, 0.1, 0.1, 0, ("11",))

    def number(self, chunk):
        return self.first + chunk


@pytest.fixture
def rendered(worker, model, monkeypatch, tmp_path):
    """rendered(task, **settings of Pixels) -> what `RankWorker.render` yields."""
    worker.store = Store(str(tmp_path))
    monkeypatch.setattr(worker, "_load", lambda name, frugal: model)

    def play(task, **settings):
        monkeypatch.setattr(worker, "_renderer", lambda model, task: Pixels(task, **settings))
        return list(worker.render(task))

    return play


def test_a_spoilt_chunk_ends_the_attempt_where_steps_were_reused(rendered):
    task = replace(tasks()[1][0], last=True)
    first, end = rendered(task, reused=1)
    assert (first.chunk, first.flaw, end) == (0, None, Flawed(1, "black"))
    assert rendered(task, reused=0, spares=True)[-1] == Flawed(1, "black")  # fewer steps, all of them computed


def test_it_is_kept_and_flagged_where_none_was(rendered):
    task = replace(tasks()[1][0], last=True, reuse=False)
    *chunks, marker = rendered(task, reused=0)
    assert [chunk.flaw for chunk in marker.chunks] == [None, "black", None] and tuple(chunks) == marker.chunks


def test_a_marker_says_on_what_it_was_rendered(rendered):
    *_, marker = rendered(replace(tasks()[1][0], last=True), reused=0)
    assert marker.seconds.keys() == {"load", "conditioning", "text"} and marker.seconds["text"] == 0.25
    assert marker.hardware.keys() == {"device", "attention", "torch"}
    assert marker.hardware["device"].endswith("CPU") and marker.hardware["attention"] == "flash_attention"
    assert marker.hardware["torch"] == torch.__version__


def test_values_that_are_not_finite_are_tried_without_reuse_first(rendered):
    task = replace(tasks()[1][0], last=True)
    assert rendered(task, reused=0, dies=2)[-1] == Flawed(2, "not finite")
    with pytest.raises(NotFinite):
        rendered(replace(task, reuse=False), reused=0, dies=2)


def test_the_tail_that_a_rank_still_has_is_not_fetched(rendered, worker, model, monkeypatch):
    _, (first, second, _) = tasks()
    monkeypatch.setattr(Pixels, "tail", lambda self: torch.ones(2, 3), raising=False)
    monkeypatch.setattr(Pixels, "shown_before_next", lambda self: None, raising=False)
    *_, parent = rendered(first, reused=0)
    following = replace(second, parent=parent)
    monkeypatch.setattr(Store, "get", lambda self, key: pytest.fail(f"{key} was fetched"))
    assert worker._before(model, following)[0].equal(torch.ones(2, 3))
    monkeypatch.undo()
    worker._tail = None
    assert worker._before(model, following)[0].equal(torch.ones(2, 3))
    worker._tail = ("_state/other", b"another video's")
    assert worker._before(model, following)[0].equal(torch.ones(2, 3))


def test_all_segments_denoise_in_one_thread(worker, monkeypatch):
    threads, heed = [], SegmentRenderer._heed

    def watched(renderer, visit):
        threads.append(threading.current_thread())
        heed(renderer, visit)

    monkeypatch.setattr(SegmentRenderer, "_heed", watched)
    for task in tasks()[1][::2]:
        assert list(worker.render(task))
    assert len(set(threads)) == 1 and threads[0] is not threading.current_thread()


def test_a_segment_too_large_says_what_would_fit_and_the_rank_stays_sound(worker, monkeypatch):
    """Once more it is rendered in tiles, one forward at a time."""
    asked, chunks = [], SegmentRenderer.chunks
    task = tasks()[1][0]

    def too_large(renderer):
        asked.append((renderer.model.codec, renderer._packed))
        if len(asked) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nmore")
        yield from chunks(renderer)

    opened, load = [], worker_module.load_model
    monkeypatch.setattr(
        worker_module, "load_model", lambda *args, **how: opened.append(how["tile"]) or load(*args, **how)
    )
    monkeypatch.setattr(SegmentRenderer, "chunks", too_large)
    with pytest.raises(
        OutOfMemory, match=r"Tried to allocate 9.00 GiB..* tiny-skyreels at 64x64 is planned with .* GiB"
    ):
        list(worker.render(task))
    *_, marker = worker.render(replace(task, frugal=True))
    assert marker.frames == task.segment.frames
    assert [packed for _, packed in asked] == [True, False] and opened == [None, 256]


@pytest.mark.parametrize("share", ["render", "assist"])
def test_whatever_says_that_memory_ran_out_is_heard(worker, monkeypatch, share):
    """cuBLAS, NCCL and the host have no type of their own for it; another error is told as it is."""
    task = tasks()[1][0]
    for error in (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), MemoryError()):
        monkeypatch.setattr(worker, "_load", raising(error))
        with pytest.raises(OutOfMemory, match="is planned with .* GiB"):
            list(getattr(worker, share)(task) or ())
    monkeypatch.setattr(worker, "_load", raising(RuntimeError("sizes differ")))
    with pytest.raises(RuntimeError, match="sizes differ"):
        list(getattr(worker, share)(task) or ())


def raising(error):
    def load(name, frugal=False):
        raise error

    return load


def test_where_memory_is_short_texts_are_encoded_before_the_transformer_is_there(tmp_path, monkeypatch):
    """Their encoder may be as large as what is left."""
    done = []

    class Encoder(EncodedTexts):
        def prepare(self, texts):
            if new := [text for text in texts if text not in self.words]:
                done.append((new, worker._model is None))
            super().prepare(texts)

    monkeypatch.setattr("flowcache.models.text.EncodedTexts", Encoder)
    worker = RankWorker(Store(str(tmp_path)), WorkerSettings("run", "hash"), "gang", 0, 1)
    _, (first, _, other) = tasks()
    *_, marker = worker.render(replace(first, frugal=True))
    assert done == [(["", "a red circle", "a blue square"], True)] and marker.frames == first.segment.frames
    list(worker.render(replace(other, frugal=True)))  # its texts are stored
    changed = replace(other, request=replace(other.request, negative_prompt="a green square"), frugal=True)
    list(worker.render(changed))
    assert done[1:] == [(["a green square"], True)]
    list(worker.render(replace(changed, request=replace(other.request, negative_prompt="a white ring"), frugal=False)))
    assert done[2:] == [(["a white ring"], False)]


def test_a_task_that_nobody_wants_any_more_ends_and_the_worker_goes_on(worker, model, monkeypatch):
    _, (first, *_) = tasks()
    worker._model, worker._name = model, "tiny-skyreels"
    heed, seen = SegmentRenderer._heed, []

    def told(self, visit):  # from another thread, in the middle of denoising
        if not seen:
            thread = threading.Thread(target=worker.end_task, args=("v", 0))
            thread.start()
            thread.join()
        seen.append(visit)
        heed(self, visit)

    monkeypatch.setattr(SegmentRenderer, "_heed", told)
    with pytest.raises(Abandoned, match="cancelled") as error:
        list(worker.render(first))
    assert len(seen) == 1 and kind_of(error.value) == "abandoned"
    assert len(list(worker.render(first))) > 1  # the same segment, once it is wanted again
