from flowcache.progress.counts import Counts
from flowcache.progress.events import ChunkDone, RunBegan, SegmentCommitted, SegmentFailed, SegmentStarted, VideoBegan
from tests.unit.progress.played import play


def test_a_whole_run_is_counted():
    counts = Counts()
    play(counts)
    assert (counts.total, counts.made, counts.finished_chunks, counts.finished_videos) == (8, 6, 6, 1)
    assert (counts.computed, counts.reused) == (36, 12)
    assert {name: (video.state, video.finished) for name, video in counts.videos.items()} == {
        "long": ("done", 6),
        "short": ("dead", 0),
        "third": ("cancelled", 0),
    }
    assert counts.summary() == "1/3 videos, 6/8 chunks, 1 finished, 25% of steps reused"  # of the others nothing comes
    assert (counts.left, counts.failures, counts.work, counts.count("dead")) == (0, 3, {}, 1)


def test_what_earlier_drivers_committed_counts_from_the_start():
    counts = Counts()
    counts.on(RunBegan("run", (VideoBegan("a", 3, 11, 1, 5, dead=False), VideoBegan("b", 1, 5, 0, 0, dead=True))))
    assert counts.summary() == "0/2 videos, 5/16 chunks"
    assert (counts.videos["a"].state, counts.videos["b"].state) == ("waiting", "dead")


def test_only_what_is_committed_counts_when_an_attempt_has_ended():
    counts = Counts()
    counts.on(RunBegan("run", (VideoBegan("a", 3, 11, 1, 5, dead=False),)))
    counts.on(SegmentStarted("a", 1))
    for chunk in (5, 6):
        counts.on(ChunkDone("a", 1, chunk, 1, 0))
    assert counts.videos["a"].finished == counts.finished_chunks == 7
    counts.on(SegmentFailed("a", 1, 0, "lost", "infra", again=True))
    assert counts.videos["a"].finished == counts.finished_chunks == 5
    counts.on(SegmentCommitted("a", 1, 4))
    assert counts.videos["a"].finished == counts.finished_chunks == 9
