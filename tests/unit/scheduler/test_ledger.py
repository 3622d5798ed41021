"""What a run tells of itself, over simulated gangs."""

import time

from flowcache.progress.events import (
    ChunkDone,
    NodesAvoided,
    Note,
    RunBegan,
    RunEnded,
    RunOver,
    SegmentCommitted,
    SegmentFailed,
    SegmentStarted,
    Tick,
    VideoBegan,
    VideoDead,
    VideoDone,
)
from flowcache.scheduler.protocols import GangFailure
from tests.unit.scheduler.studio import ONE_SEGMENT, Studio, request


class Told(list):
    def on(self, event):
        self.append(event)

    def news(self) -> list:
        """Without what comes with the clock."""
        return [event for event in self if not isinstance(event, Tick | NodesAvoided | Note)]


def test_a_run_is_told_event_by_event():
    studio = Studio(request("a", ONE_SEGMENT))
    studio.notes = told = Told()
    summary = studio.run()
    assert told.news() == [
        RunBegan(summary.run_id, (VideoBegan("a", 1, 5, 0, 0, dead=False),)),
        SegmentStarted("a", 0, "gang-1", 5),
        *(ChunkDone("a", 0, chunk, 6, 2) for chunk in range(5)),
        SegmentCommitted("a", 0, 5),
        VideoDone("a"),
        RunEnded(),
        RunOver(0, ""),
    ]
    assert {Tick(), NodesAvoided(0), Note("starting 1 gang, running 0")} <= set(told)


def test_failures_are_told_with_what_follows():
    def fault(task):
        raise GangFailure(3, "work", "it broke", usable=True)

    studio = Studio(request("a"))
    studio.notes = told = Told()
    studio.run(fault=fault, retries=1)
    first, second = (SegmentFailed("a", 0, 3, "it broke", "work", again) for again in (True, False))
    started, dead = SegmentStarted("a", 0, "gang-1", 5), VideoDead("a", "it broke")
    assert told.news()[1:] == [started, first, started, second, dead, RunEnded(), RunOver(3, "")]


def test_what_earlier_drivers_did_is_told_at_the_start():
    studio = Studio(request("a"), request("b", ONE_SEGMENT), request("c"))

    def fault(task):
        if task.request.id == "c":
            raise GangFailure(0, "work", "it broke", usable=True)

    studio.run(retries=0, fault=fault, seconds=lambda task: 10.0, until=time.time() + 25)
    studio.notes = told = Told()
    studio.run()
    began, *_, last = told.news()
    assert began.videos == (
        VideoBegan("a", 2, 9, 2, 9, dead=False),
        VideoBegan("b", 1, 5, 0, 0, dead=False),
        VideoBegan("c", 2, 9, 0, 0, dead=True),
    )
    assert told.news()[1] == VideoDone("a", new=False) and last == RunOver(3, "")


def test_a_run_that_breaks_off_is_told_to_have_ended():
    def fault(task):
        raise KeyboardInterrupt

    studio = Studio(request("a"))
    studio.notes = told = Told()
    try:
        studio.run(fault=fault)
    except KeyboardInterrupt:
        assert told[-1] == RunEnded()
    else:
        raise AssertionError("the run went on")
