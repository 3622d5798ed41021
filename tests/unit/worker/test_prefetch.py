"""Making the next thing while the last one is used."""

import threading
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from flowcache.families.registry import load_model
from flowcache.inputs.segments import plan
from flowcache.records import RenderRequest, Shot
from flowcache.worker.prefetch import Abandoned, Beside, prefetch
from flowcache.worker.renderer import SegmentRenderer, to_uint8


def numbers(upto, made, fails_at=None):
    for number in range(upto):
        if number == fails_at:
            raise ArithmeticError(f"number {number}")
        made.append((number, threading.current_thread()))
        yield number


def test_one_is_made_while_the_last_is_used_and_no_more():
    made, used = [], []
    with prefetch(numbers(5, made), lambda: None) as items:
        for number in items:
            deadline = time.monotonic() + 10
            while len(made) < min(number + 2, 5) and time.monotonic() < deadline:
                time.sleep(0.001)
            used.append((number, len(made)))
    assert used == [(0, 2), (1, 3), (2, 4), (3, 5), (4, 5)]
    assert len({thread for _, thread in made}) == 1 and made[0][1] is not threading.current_thread()
    assert not made[0][1].is_alive()


def test_an_error_comes_in_its_place():
    used = []
    with pytest.raises(ArithmeticError, match="number 2"), prefetch(numbers(5, [], fails_at=2), lambda: None) as items:
        for number in items:
            used.append(number)
    assert used == [0, 1]


def test_who_leaves_cuts_short_what_is_being_made():
    left, threads = threading.Event(), []

    def endless():
        yield 0
        threads.append(threading.current_thread())
        left.wait(60)
        raise Abandoned

    with pytest.raises(ZeroDivisionError), prefetch(endless(), left.set) as items:
        assert next(items) == 0
        raise ZeroDivisionError
    assert left.is_set() and not threads[0].is_alive()


def test_a_worker_has_one_thread_and_one_stream_for_all_its_segments(monkeypatch):
    made, followed, beside = [], [], Beside()

    class Stream:
        def __init__(self, device):
            made.append(self)

        def wait_stream(self, other):
            followed.append((self, other))

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "denoising")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    gpu = torch.device("cuda:0")
    assert [beside.stream(gpu) for _ in range(3)] == made * 3 and len(made) == 1
    assert followed == [(made[0], "denoising")] * 3
    threads = []
    for _ in range(3):
        with prefetch(numbers(2, threads), lambda: None, beside.thread) as items:
            assert list(items) == [0, 1]
    assert len({thread for _, thread in threads}) == 1 and threads[0][1].is_alive()


def test_the_next_segment_begins_when_the_one_before_has_ended():
    """Who leaves early waits until the thread is free again."""
    beside, left, ended = Beside(), threading.Event(), []

    def endless():
        yield 0
        left.wait(60)
        ended.append(True)
        raise Abandoned

    with prefetch(endless(), left.set, beside.thread) as items:
        next(items)
    assert ended == [True]


REQUEST = RenderRequest("v", (Shot("a red circle", 57),), 64, 64, 12, 1, 3.0, 2, "tiny-skyreels", {"name": "off"})


class Watched:
    """A codec that calls `before` with the number of each chunk before it decodes it."""

    def __init__(self, codec, before):
        self.codec, self.before, self.encode = codec, before, codec.encode

    def stream(self, share):
        decode, count = self.codec.stream(share), iter(range(100))

        def watched(latents):
            self.before(next(count))
            return decode(latents)

        return watched


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return load_model("tiny-skyreels")


def renderer(model, before, heard=None):
    class Heard(SegmentRenderer):
        def finished(self):
            for chunk in super().finished():
                heard.append(chunk.index)
                yield chunk

    kind = SegmentRenderer if heard is None else Heard
    (segment,) = plan(REQUEST, model.spec)
    return kind(replace(model, codec=Watched(model.codec, before)), REQUEST, segment, None)


def test_a_chunk_waits_for_no_more_than_the_next_ones_denoising(model):
    """Each chunk can be decoded before the one after the next is begun."""
    denoised, at_decoding = [], []
    for chunk in renderer(model, lambda number: at_decoding.append(len(denoised)), denoised).chunks():
        assert len(denoised) <= chunk.chunk + 2
    assert denoised == [0, 1, 2, 3, 4]
    assert all(count <= number + 2 for number, count in enumerate(at_decoding))


def test_frames_and_tail_are_those_of_one_thing_after_the_other(model):
    """Bit for bit, from a fresh start and from a tail."""
    request = replace(REQUEST, shots=(Shot("a red circle", 57 + 24),))
    tail = None
    for segment in plan(request, model.spec):
        decode, renderer = model.codec.stream(), SegmentRenderer(model, request, segment, tail)
        pixels = [] if tail is None else [decode(tail)]
        pixels += [decode(done.latents) for done in renderer.finished()]
        shown = to_uint8(torch.cat(pixels, dim=1))[-segment.frames :]
        recent = torch.cat(pixels, dim=1)[:, -model.spec.overlap_frames :]
        renderer = SegmentRenderer(model, request, segment, tail)
        assert np.array_equal(np.concatenate([chunk.frames for chunk in renderer.chunks()]), shown)
        tail = renderer.tail()
        assert torch.equal(tail, model.codec.encode(recent))


def test_a_codec_that_fails_ends_denoising_at_once(model):
    """The error is the decoder's own, and no thread is left that would still hold the model's memory."""
    before = threading.active_count()

    def fail(number):
        if number == 1:
            raise ArithmeticError("the decoder broke")

    seen = []
    with (
        pytest.raises(ArithmeticError, match="the decoder broke"),
        closing(renderer(model, fail, []).chunks()) as chunks,
    ):
        for chunk in chunks:
            seen.append(chunk.chunk)
    assert seen == [0] and threading.active_count() == before


def test_who_stops_early_leaves_no_thread(model):
    before = threading.active_count()
    with closing(renderer(model, lambda number: None).chunks()) as chunks:
        next(chunks)
    assert threading.active_count() == before
