"""Two attempts at one segment, as real processes: exactly one may win, and all must agree which."""

import multiprocessing

import pytest

from flowcache.storage import layout
from flowcache.storage.commits import marker_sha256, read_commits
from flowcache.storage.documents import sha256
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run
from flowcache.storage.verify import verify
from tests.s3.racers import race
from tests.unit.storage.samples import Studio, request

WRITERS = 8


@pytest.fixture(params=["local", "moto", "ceph"])
def shared_store(request, tmp_path):
    """A store that other processes reach too."""
    return Store(str(tmp_path)) if request.param == "local" else request.getfixturevalue(request.param).store()


def test_eight_processes_race_for_one_segment(shared_store):
    begin_run(shared_store, Studio(shared_store, (request("cat"),)).record())
    context = multiprocessing.get_context("forkserver")  # the imports once, not eight times
    context.set_forkserver_preload(["tests.s3.racers", "s3fs"])
    barrier, results = context.Barrier(WRITERS), context.Queue()
    processes = [context.Process(target=race, args=(shared_store, barrier, results)) for _ in range(WRITERS)]
    for process in processes:
        process.start()
    winners = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    (winner,) = read_commits(shared_store).markers["cat"]
    assert winners == {marker_sha256(winner)}
    assert all(sha256(shared_store.get(chunk.key)) == chunk.sha256 for chunk in winner.chunks)
    media = [entry.key for entry in shared_store.list(layout.MEDIA)]
    assert len(media) == 1 + WRITERS * len(winner.chunks)  # the losers' chunks are there, and nobody reads them
    report = verify(shared_store)
    assert report.sound, report.problems
    assert report.counts["orphans"] == (WRITERS - 1) * (len(winner.chunks) + 1)
