import errno
import io

import pytest
from rich.console import Console

from flowcache.progress.counts import LOG_EVERY
from flowcache.progress.events import (
    ChunkDone,
    Note,
    RunEnded,
    SegmentFailed,
    SegmentStarted,
    Tick,
    Together,
    VideoDone,
)
from flowcache.progress.json_lines import JsonProgress
from flowcache.progress.terminal import LiveProgress, LogProgress, progress_for
from tests.unit.progress.played import BEGAN, play


@pytest.fixture
def console():
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def test_a_log_tells_each_event_on_a_line_of_its_own():
    stream = io.StringIO()
    play(LogProgress(stream))
    clocks, lines = zip(*(line.split(" ", 1) for line in stream.getvalue().splitlines()), strict=True)
    assert all(len(clock) == 8 and clock[2] == clock[5] == ":" for clock in clocks)
    assert lines[0] == "run 0123456789abcdef: 0/2 videos, 0/7 chunks"
    assert lines[1] == "long: segment 0 failed on rank 1: OSError: s3://key:secret@host/x gone; trying again"
    assert lines[2] == "short: segment 0 failed on rank 1: OSError: s3://key:secret@host/x gone; giving up"
    assert lines[3] == "short: dead-lettered: OSError: no"
    assert lines[4].startswith("long: segment 0 (2 in all) committed; 0/2 videos, 5/7 chunks, 25% of steps reused, ")
    assert lines[5] == "long: 1 damaged segments were withdrawn, and are rendered again"
    assert lines[6].startswith("long: segment 0 (2 in all) committed; 0/2 videos, 5/7 chunks")
    assert (
        lines[7] == "long: segment 1 (2 in all) committed; 0/2 videos, 6/7 chunks, 25% of steps reused"
    )  # none to come
    assert lines[8] == "long: done"
    assert lines[9] == "long: its finish failed on rank 0: OSError: s3://key:secret@host/x gone; trying again"
    assert lines[10] == "long: finished by mine:finish, 2 files"
    assert lines[11].startswith("long: its finish is given up: OSError") and lines[12] == "a note"
    assert lines[13] == "command 1 (cancel third) of ann@desk: obeyed: cancelled: third"
    assert lines[14].startswith("1 videos came; 1/3 videos, 6/8 chunks") and lines[15] == "third: cancelled by ann@desk"
    assert lines[16:] == ("third: segment 0 was ended: the video was cancelled", "third: skipped by ann@desk")


def test_a_log_says_nothing_of_videos_that_were_done_before():
    stream = io.StringIO()
    log = LogProgress(stream)
    log.on(BEGAN)
    log.on(VideoDone("long"))
    assert len(stream.getvalue().splitlines()) == 1


def test_a_log_sums_up_now_and_then(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    log = LogProgress(stream)
    log.on(BEGAN)
    for seconds in (LOG_EVERY, 1.0, 1.0):
        now[0] += seconds
        log.on(Tick())
    assert len(stream.getvalue().splitlines()) == 2


def test_a_terminal_shows_every_video_with_its_state(console):
    progress = LiveProgress(console)
    play(progress)
    last = console.file.getvalue()
    assert "done" in last and "6/6 chunks" in last and "dead" in last and "0/1 chunks" in last
    assert "giving up" in last and "a note" in last and not progress.live.is_started


def test_the_live_table_is_only_for_terminals():
    assert isinstance(progress_for(Console(file=io.StringIO())).listener, LogProgress)
    assert isinstance(progress_for(Console(file=io.StringIO(), force_terminal=True)).listener, LiveProgress)
    kinds = {"bar": LiveProgress, "plain": LogProgress, "json": JsonProgress, "quiet": Together}
    assert all(isinstance(progress_for(Console(file=io.StringIO()), how).listener, kind) for how, kind in kinds.items())


def test_a_terminal_shows_the_run_and_what_each_gang_does(console):
    progress = LiveProgress(console)
    progress.on(BEGAN)
    progress.on(SegmentStarted("long", 0, "gang-2", 5))
    progress.on(ChunkDone("long", 0, 0, 6, 2))
    progress.on(SegmentFailed("short", 0, 0, "lost", "infra", again=True))
    progress.on(RunEnded())
    last = console.file.getvalue()
    assert "gang-2" in last and "segment 0 (2 in all)" in last and "1/5 chunks of it" in last
    assert "1/7 chunks" in last and "chunks a minute" in last and "1 attempts failed" in last


def test_causes_are_no_markup(console):
    """What a person or a library wrote must not stop the run: an unmatched [/x] is an error of rich's markup."""
    progress = LiveProgress(console)
    progress.on(BEGAN)
    progress.on(SegmentFailed("short", 0, 0, "bad [/x] and [bold]", "infra", again=True))
    progress.on(Note("[/y]"))
    progress.on(RunEnded())
    assert "bad [/x] and [bold]" in console.file.getvalue() and "[/y]" in console.file.getvalue()


class Full(io.StringIO):
    """A disk without room, or a terminal that is gone."""

    room = False

    def write(self, text):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


@pytest.mark.parametrize("how", ["bar", "plain", "json"])
def test_a_run_goes_on_whose_log_nobody_takes(monkeypatch, how):
    stream = Full()
    monkeypatch.setattr("sys.stderr", stream)
    progress = progress_for(Console(file=stream, force_terminal=True), how)
    play(progress)
    stream.room = True
    progress.on(Note("there is room again"))
    assert "there is room again" in stream.getvalue()


@pytest.mark.parametrize("how", ["bar", "plain"])
def test_what_a_terminal_would_obey_is_shown(monkeypatch, how):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    progress_for(Console(file=stream), how).on(Note("command of \x1b[2Jme"))
    assert "command of \\x1b[2Jme" in stream.getvalue()
