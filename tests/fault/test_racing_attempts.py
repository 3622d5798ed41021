"""Two processes render the same segment at the same time: one marker, and both go on from the winner's."""

import multiprocessing
from functools import partial

from flowcache import api
from flowcache.inputs.schema import RowDefaults
from flowcache.inputs.segments import plan
from flowcache.storage.commits import mark_done, put_playlist, read_commits
from flowcache.storage.documents import SegmentMarker
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run, new_run
from flowcache.storage.tables import write_tables
from flowcache.storage.verify import verify
from flowcache.worker.task import WorkerSettings
from flowcache.worker.worker import RankWorker, Task

RACERS = 2
ROW = {
    "id": "v",
    "prompt": "a red circle moving right on a blue background",
    "frames": 69,
    "steps": 2,
}


def race(start, results, worker: partial, task: Task) -> None:
    """One racer: set up, wait for the others, render, tell which marker it was given."""
    rank = worker()
    rank._load(task.request.model)
    start.wait()
    events = list(rank.render(task))
    results.put((rank.gang, events[-1]))


def run_race(store: Store, record, task: Task) -> dict[str, SegmentMarker]:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(RACERS), context.Queue()
    settings = WorkerSettings(record.run_id, record.spec_hash)
    workers = [partial(RankWorker, store, settings, f"racer-{i}", 0, 1) for i in range(RACERS)]
    racers = [context.Process(target=race, args=(start, results, worker, task)) for worker in workers]
    for racer in racers:
        racer.start()
    winners = dict(results.get(timeout=120) for _ in racers)
    for racer in racers:
        racer.join()
    return winners


def test_two_attempts_one_winner(tmp_path):
    (request,), _, _, specs = api.check([ROW], RowDefaults())
    segments = plan(request, specs[request.model])
    store = Store(str(tmp_path / "out"))
    digests = {name: spec.digest for name, spec in specs.items()}
    record = begin_run(store, new_run([request], digests, segments, "test"))
    parent = None
    for segment in segments:
        given = run_race(store, record, Task(request, segment, parent, last=segment is segments[-1]))
        assert len(given) == RACERS and len({marker.attempt for marker in given.values()}) == 1
        parent = next(iter(given.values()))
        assert parent.gang in given
    markers = read_commits(store).markers["v"]
    assert markers[-1] == parent and len(markers) == len(segments)
    put_playlist(store, "v", markers, done=True)
    mark_done(store, "v", markers)
    write_tables(store, record)
    report = verify(store)
    assert report.sound, report.problems
    assert report.counts["orphans"] == sum(len(marker.chunks) for marker in markers) + 1  # the loser's media and state
