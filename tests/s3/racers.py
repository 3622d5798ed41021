"""What each process of the race does; importable, so that spawned processes find it."""

from flowcache.storage.commits import marker_sha256
from flowcache.storage.objects.store import Store
from tests.unit.storage.samples import Studio, plan, request


def race(store: Store, barrier, results) -> None:
    """Render the same segment as everybody else, from upload to commit."""
    studio = Studio(store, (request("cat"),))
    segment = plan(studio.requests)[0]
    store.exists("warm")  # connect before the start
    barrier.wait(60)
    results.put(marker_sha256(studio.render(segment, None)))
