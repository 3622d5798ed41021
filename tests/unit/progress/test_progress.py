import io

import pytest
from rich.console import Console

from flowcache.inputs.segments import plan
from flowcache.progress.progress import LiveProgress, LogProgress, progress_for
from flowcache.records import ChunkRecord, ModelSpec, RenderRequest, Shot
from flowcache.scheduler.queue import Video
from flowcache.storage.runs import new_run

SPEC = ModelSpec("tiny", "skyreels", "", "", chunk=3, window=15, overlap=3, channels=16)


def video(name: str, frames: int) -> Video:
    request = RenderRequest(name, (Shot("p", frames),), 64, 64, 12, 1, 3.0, 4, model="tiny", policy={"name": "off"})
    return Video(request, plan(request, SPEC))


def record(chunk: int, computed: int = 6, reused: int = 2) -> ChunkRecord:
    return ChunkRecord(chunk, "k", "0", 1, 12, 0, computed, reused, 0.1, 0.1, 0.1, 0.1)


@pytest.fixture
def videos():
    return [video("long", 69), video("short", 9)]


def play(progress, videos):
    """A run in which the short video fails once and then for good."""
    run = new_run([v.request for v in videos], {}, [s for v in videos for s in v.segments], "0")
    long, short = videos
    progress.begin(run, videos)
    progress.started(long.segments[0])
    for chunk in range(5):
        progress.chunk(long.segments[0], record(chunk))
    long.committed.add(0)
    progress.committed(long.segments[0])
    progress.started(short.segments[0])
    progress.chunk(short.segments[0], record(0))
    progress.failed(short.segments[0], 1, "ValueError: no", "work", again=True)
    assert progress.chunks["short"] == 0  # what the lost attempt made does not count
    progress.failed(short.segments[0], 1, "ValueError: no", "work", again=False)
    progress.dead("short", "ValueError: no")
    progress.tick()
    progress.close()


def test_a_log_tells_each_event_on_a_line_of_its_own(videos):
    stream = io.StringIO()
    play(LogProgress(stream), videos)
    lines = stream.getvalue().splitlines()
    assert "0/2 videos, 0/7 chunks" in lines[0]
    assert "long: segment 1 of 2 committed; 0/2 videos, 5/7 chunks, 25% of steps reused, about" in lines[1]
    assert lines[2].endswith("short: segment 0 failed on rank 1: ValueError: no; trying again")
    assert lines[4].endswith("short: dead-lettered: ValueError: no")


def test_a_terminal_shows_every_video_with_its_state(videos):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    play(LiveProgress(console), videos)
    last = console.file.getvalue()
    assert "rendering" in last and "5/6 chunks" in last and "dead" in last and "0/1 chunks" in last
    assert "giving up" in last


def test_the_live_table_is_only_for_terminals():
    assert isinstance(progress_for(Console(file=io.StringIO())), LogProgress)
    assert isinstance(progress_for(Console(file=io.StringIO(), force_terminal=True)), LiveProgress)


def test_causes_are_no_markup(videos):
    """What a person or a library wrote must not stop the run: an unmatched [/x] is an error of rich's markup."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    progress = LiveProgress(console)
    progress.begin(new_run([v.request for v in videos], {}, [s for v in videos for s in v.segments], "0"), videos)
    progress.failed(videos[1].segments[0], 0, "bad [/x] and [bold]", "infra", again=True)
    progress.note("[/y]")
    progress.close()
    assert "bad [/x] and [bold]" in console.file.getvalue() and "[/y]" in console.file.getvalue()
