"""The scale benchmark on a small run: requests for each segment do not grow with the run, the schedule is tight."""

import pytest

from benchmarks.scale import Scene

BY_TIME = ("_control", "_events")  # as many as time has passed


@pytest.mark.parametrize("videos", [30, 240])
def test_requests_follow_from_segments_chunks_and_videos_alone(videos):
    scene = Scene(videos, 0.0)
    summary = scene.run(gangs=videos // 10)
    assert summary.exit_code == 0 and len(summary.done) == videos
    asked, segments = scene.backend.requests, scene.count
    chunks = sum(segment.chunks for found in scene.segments.values() for segment in found)
    continued = segments - videos  # none of them cuts
    assert asked["loop put media"] == chunks
    assert asked["loop create marker"] == asked["loop create init"] == segments
    assert asked["loop get init"] == asked["loop get state"] == asked["loop put state"] == continued
    assert asked["driver create DONE"] == videos
    assert videos <= asked["driver put playlist"] <= segments  # of several in a row only the last is written
    assert asked["driver put master"] == asked["driver put playlist"]
    assert segments <= asked["loop get owner"] < segments + 9  # right before each commit
    assert asked["loop list _control"] < 9  # beside one every two seconds, whatever is rendered
    named = ("media", "marker", "init", "state", "owner", "DONE", "playlist", "master", *BY_TIME)
    rest = sum(count for name, count in asked.items() if name.split()[-1] not in named)
    assert rest < 40  # what a run asks once
    (provider,) = scene.providers
    assert provider.clock < 1.25 * scene.lower_bound(videos // 10)
    before = asked.copy()
    assert scene.run(gangs=1).rendered == 0 and len(scene.providers) == 1
    again = scene.backend.requests - before
    assert sum(count for name, count in again.items() if name.split()[-1] not in BY_TIME) < 40
