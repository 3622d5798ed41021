"""What listens to a run beside the person: metrics and JSON lines."""

import inspect
import io
import json
import logging

import pytest

from flowcache.errors import StoreError
from flowcache.inputs.segments import plan
from flowcache.progress.json_lines import JsonLines, JsonProgress
from flowcache.progress.progress import Progress, Together
from flowcache.records import ChunkRecord, ModelSpec, RenderRequest, Shot
from flowcache.runtime import metrics
from flowcache.runtime.actor import RankActor
from flowcache.scheduler.queue import Video
from flowcache.storage.runs import new_run
from flowcache.worker.task import WorkerSettings
from flowcache.worker.worker import RankWorker, Task

SPEC = ModelSpec("tiny", "skyreels", "", "", chunk=3, window=15, overlap=3, channels=16)
RECORD = ChunkRecord(0, "k", "0", 1, 12, 0, 6, 2, 0.4, 0.3, 0.2, 0.0)


class FakeMetric:
    """Takes the place of Ray's counters and gauges; remembers what was recorded."""

    def __init__(self, name, description, tag_keys=()):
        self.name, self.tag_keys, self.values = name, set(tag_keys), {}

    def inc(self, value=1.0, tags=None):
        key = self._key(tags)
        assert value > 0  # as Ray's
        self.values[key] = self.values.get(key, 0) + value

    def set(self, value, tags=None):
        self.values[self._key(tags)] = value

    def _key(self, tags):
        assert set(tags or {}) == self.tag_keys
        return tuple((tags or {}).values())


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    monkeypatch.setattr(metrics, "Counter", FakeMetric)
    monkeypatch.setattr(metrics, "Gauge", FakeMetric)


def video(name: str, frames: int) -> Video:
    request = RenderRequest(name, (Shot("p", frames),), 64, 64, 12, 1, 3.0, 4, "tiny", {"name": "paper"})
    return Video(request, plan(request, SPEC))


def play(progress: Progress) -> None:
    """Two segments of `long` are rendered, the first after a failure; `short` is given up."""
    long, short = videos = [video("long", 69), video("short", 9)]
    progress.begin(new_run([v.request for v in videos], {}, [s for v in videos for s in v.segments], "0"), videos)
    first, second = long.segments
    for segment, again in ((first, True), (short.segments[0], False)):
        progress.started(segment)
        progress.failed(segment, 1, "OSError: s3://key:secret@host/x gone", "work", again=again)
    progress.dead("short", "OSError: no")
    for segment in (first, second):
        progress.started(segment)
        progress.chunk(segment, RECORD)
        long.committed.add(segment.index)
        progress.committed(segment)
    progress.done("long")
    progress.note("a note")
    progress.avoided(1)
    progress.tick()
    progress.close()


def test_gauges_follow_the_run_to_its_end():
    watched = metrics.RunMetrics()
    play(watched)
    assert watched._videos.values == {("waiting",): 0, ("rendering",): 0, ("done",): 1, ("dead",): 1}
    assert watched._segments.values == {("waiting",): 0, ("running",): 0}
    assert watched._committed.values == {(): 2} and watched._avoided.values == {(): 1}
    assert watched._failures.values == {("work", "tried again"): 1, ("work", "given up"): 1}


def test_the_queue_is_what_waits_at_each_moment():
    watched = metrics.RunMetrics()
    made = [video("long", 69), video("short", 9)]
    made[0].committed.add(0)
    watched.begin(new_run([v.request for v in made], {}, [s for v in made for s in v.segments], "0"), made)
    assert watched._segments.values[("waiting",)] == 2 and watched._videos.values[("waiting",)] == 2
    watched.started(made[0].segments[1])
    assert watched._segments.values == {("waiting",): 1, ("running",): 1}
    watched.failed(made[0].segments[1], 0, "", "infra", again=True)
    assert watched._segments.values == {("waiting",): 2, ("running",): 0}


def test_chunks_are_counted_with_model_policy_and_gang():
    work = metrics.WorkMetrics("gang-3")
    work.chunk("tiny", "paper", RECORD)
    work.chunk("tiny", "paper", RECORD)
    tags = ("tiny", "paper", "gang-3")
    assert work.chunks.values == {tags: 2} and work.frames.values == {tags: 24}
    assert work.steps.values == {(*tags, "computed"): 12, (*tags, "reused"): 4}
    assert work.seconds.values == {(*tags, "denoise"): 0.8, (*tags, "decode"): 0.6, (*tags, "encode"): 0.4}


def test_the_driver_logs_each_event_with_its_place():
    stream = io.StringIO()
    play(JsonProgress(stream))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    failed = next(line for line in lines if line["level"] == "warning")
    assert [failed[name] for name in ("video", "segment", "rank", "kind")] == ["long", 0, 1, "work"]
    assert failed["cause"] == "OSError: s3://***@host/x gone" and failed["time"].endswith("Z")
    told = [line["message"] for line in lines if line.get("video") == "long" and line.get("segment") == 1]
    assert told == ["segment started", "chunk finished", "segment committed"]
    assert [line["video"] for line in lines if line["message"] in ("video done", "video dead-lettered")] == [
        "short",
        "long",
    ]
    assert not logging.getLogger("flowcache.run").propagate


def test_a_log_line_never_breaks_on_what_it_holds():
    record = logging.LogRecord("n", logging.INFO, "", 0, "two\nlines at %s", ("s3://a:b@c/d",), None)
    record.video, record.cause = "v", ValueError("x")
    line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "two\nlines at s3://***@c/d" and found["cause"] == "x"


def test_a_rank_logs_its_share_and_what_failed_in_it(capfd, monkeypatch):
    actor = RankActor(None, WorkerSettings("run", "hash"), "gang-1", 2, 1)
    request = video("v", 9).request
    task = Task(request, plan(request, SPEC)[0], None, True)
    monkeypatch.setattr(RankWorker, "render", lambda self, task: iter([RECORD]))
    assert list(actor.render(task)) == [RECORD]
    assert actor.metrics.chunks.values == {("tiny", "paper", "gang-1"): 1}

    def lost(self, task):
        raise StoreError("s3://a:b@c/d is gone")

    monkeypatch.setattr(RankWorker, "assist", lost)
    with pytest.raises(StoreError):
        actor.assist(task)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["segment started", "segment finished"] * 1 + [
        "segment started",
        "segment failed",
    ]
    assert all((line["video"], line["segment"], line["rank"], line["gang"]) == ("v", 0, 2, "gang-1") for line in lines)
    assert "StoreError: s3://***@c/d is gone" in lines[-1]["traceback"] and lines[-1]["seconds"] >= 0


def events() -> set[str]:
    return {name for name, _ in inspect.getmembers(Progress, inspect.isfunction) if not name.startswith("_")}


def test_together_passes_every_event_on():
    class Told(Progress):
        def __getattribute__(self, name):
            if name in events():
                told.append(name)
            return super().__getattribute__(name)

    told = []
    play(Together(Told(), Told()))
    assert {name: told.count(name) % 2 for name in told} == dict.fromkeys(events() - {"summary"}, 0)
