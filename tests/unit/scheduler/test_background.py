"""A run in the background: videos as they are finished, the end, and what stops it."""

import threading

import pytest

from flowcache.inputs.options import RunOptions
from flowcache.progress.events import Tick, VideoDone
from flowcache.scheduler.background import CANCELLED, FinishedVideo, Run
from flowcache.scheduler.stopping import Stopping
from flowcache.scheduler.summary import Summary

ENDED = Summary("run", "out", ("a", "b"), {}, {}, 3, 1.0)


def begun(work, stopping=None) -> Run:
    return Run(work, stopping or Stopping(RunOptions()), lambda video: f"out/media/{video}/index.m3u8")


def test_videos_come_while_the_run_goes_on(impatient):
    watched = threading.Event()

    def work(run):
        run.on(VideoDone("a"))
        assert watched.wait(4)
        run.on(Tick())
        run.on(VideoDone("b"))
        return ENDED

    run = begun(work)
    found = iter(run)
    assert next(found) == FinishedVideo("a", "out/media/a/index.m3u8") and run.running
    with pytest.raises(TimeoutError, match="goes on after 0.01 s"):
        run.wait(0.01)
    watched.set()
    assert [video.video_id for video in found] == ["b"] and list(run) == []
    assert run.wait() == run.wait() == ENDED and not run.running


def test_what_it_raises_is_raised_by_wait(impatient):
    def work(run):
        raise ValueError("no gang")

    run = begun(work)
    assert list(run) == []
    for _ in range(2):
        with pytest.raises(ValueError, match="no gang"):
            run.wait()


def test_cancelled_by_hand_and_by_an_exception(impatient):
    for way in ("hand", "exception"):
        stopping, stopped = Stopping(RunOptions()), threading.Event()
        stop = stopping.stop
        stopping.stop = lambda why, stop=stop, stopped=stopped: (stop(why), stopped.set())

        def work(run, stopped=stopped):
            assert stopped.wait(4)
            return ENDED

        if way == "hand":
            begun(work, stopping).cancel()
        else:
            with pytest.raises(KeyError), begun(work, stopping):
                raise KeyError
        assert stopping.why == CANCELLED
