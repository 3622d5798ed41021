import pytest

from flowcache.progress.events import (
    RunBegan,
    SegmentCommitted,
    SegmentFailed,
    SegmentStarted,
    VideoBegan,
    VideoDead,
)
from flowcache.records import ChunkRecord
from flowcache.runtime.metrics import RunMetrics, WorkMetrics
from tests.unit.progress.played import play

RECORD = ChunkRecord(0, "k", "0", 1, 12, 0, 6, 2, 0.4, 0.3, 0.2, 0.0)

pytestmark = pytest.mark.usefixtures("fake_metrics")


def test_gauges_follow_the_run_to_its_end():
    watched = RunMetrics()
    play(watched)
    assert watched._videos.values == {("waiting",): 0, ("rendering",): 0, ("done",): 1, ("dead",): 1, ("cancelled",): 1}
    assert watched._segments.values == {("waiting",): 0, ("running",): 0}
    assert watched._committed.values == {(): 3} and watched._avoided.values == {(): 1}
    assert watched._failures.values == {("work", "tried again"): 1, ("work", "given up"): 1}


def test_the_queue_is_what_waits_at_each_moment():
    watched = RunMetrics()
    watched.on(
        RunBegan("run", (VideoBegan("long", 2, 6, 1, 5, dead=False), VideoBegan("short", 1, 1, 0, 0, dead=False)))
    )
    assert watched._segments.values[("waiting",)] == 2 and watched._videos.values[("waiting",)] == 2
    watched.on(SegmentStarted("long", 1))
    assert watched._segments.values == {("waiting",): 1, ("running",): 1}
    watched.on(SegmentFailed("long", 1, 0, "", "infra", again=True))
    assert watched._segments.values == {("waiting",): 2, ("running",): 0}


def test_a_video_that_two_of_its_segments_give_up_leaves_the_queue_once():
    watched = RunMetrics()
    cuts, old = VideoBegan("cuts", 3, 3, 0, 0, dead=False), VideoBegan("old", 2, 2, 0, 0, dead=True)
    watched.on(RunBegan("run", (cuts, old)))
    for segment in (0, 1):
        watched.on(SegmentStarted("cuts", segment))
    assert watched._segments.values == {("waiting",): 1, ("running",): 2}
    for segment in (0, 1):
        watched.on(SegmentFailed("cuts", segment, 0, "", "work", again=False))
        watched.on(VideoDead("cuts", ""))
        assert watched._segments.values == {("waiting",): 0, ("running",): 1 - segment}
    assert watched._videos.values[("dead",)] == 2


def test_what_runs_of_a_dead_video_may_still_be_committed():
    watched = RunMetrics()
    watched.on(RunBegan("run", (VideoBegan("cuts", 3, 3, 0, 0, dead=False),)))
    for segment in (0, 1):
        watched.on(SegmentStarted("cuts", segment))
    watched.on(SegmentFailed("cuts", 0, 0, "", "work", again=False))
    watched.on(VideoDead("cuts", ""))
    watched.on(SegmentCommitted("cuts", 1, 1))
    assert watched._segments.values == {("waiting",): 0, ("running",): 0} and watched._committed.values == {(): 1}


def test_chunks_are_counted_with_model_policy_and_gang():
    work = WorkMetrics("gang-3")
    work.chunk("tiny", "paper", RECORD)
    work.chunk("tiny", "paper", RECORD)
    tags = ("tiny", "paper", "gang-3")
    assert work.chunks.values == {tags: 2} and work.frames.values == {tags: 24}
    assert work.steps.values == {(*tags, "computed"): 12, (*tags, "reused"): 4}
    assert work.seconds.values == {(*tags, "denoise"): 0.8, (*tags, "decode"): 0.6, (*tags, "encode"): 0.4}
