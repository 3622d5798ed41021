import json

import pytest

from flowcache.errors import StoreError
from flowcache.inputs.segments import plan
from flowcache.records import ChunkRecord, ModelSpec, RenderRequest, Shot
from flowcache.runtime.actor import RankActor
from flowcache.worker.task import Task, WorkerSettings
from flowcache.worker.worker import RankWorker

SPEC = ModelSpec("tiny", "skyreels", "", "", chunk=3, window=15, overlap=3, channels=16)
RECORD = ChunkRecord(0, "k", "0", 1, 12, 0, 6, 2, 0.4, 0.3, 0.2, 0.0)


def test_a_rank_logs_its_share_and_what_failed_in_it(capfd, monkeypatch, fake_metrics):
    actor = RankActor(None, WorkerSettings("run", "hash"), "gang-1", 2, 1)
    request = RenderRequest("v", (Shot("p", 9),), 64, 64, 12, 1, 3.0, 4, "tiny", {"name": "paper"})
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
