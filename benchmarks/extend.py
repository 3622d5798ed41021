"""A finished run of 100,000 videos, extended by 1,000 rows: how long until the first of them is rendered, and what the
store is asked for. As `benchmarks.scale`, whose manifest, store and gangs it takes."""

import argparse
import time
from collections import Counter

from benchmarks.scale import Scene, measured, requests_of
from benchmarks.simulated import connector
from flowcache.inputs.options import RunOptions
from flowcache.progress.events import Together
from flowcache.scheduler.driver import Summary, run
from flowcache.storage import layout
from flowcache.storage.commits import list_commits
from flowcache.storage.documents import canonical
from flowcache.storage.growth import Terms
from flowcache.storage.parts import fingerprints, table_keys
from flowcache.storage.runs import begin_run


def finished(videos: int) -> Scene:
    """A store that lists a run as done. Its objects are empty: who reads one of a video that is done fails."""
    scene = Scene(videos, 0.0)
    begin_run(scene.store, scene.record)
    objects = scene.backend.objects
    for name, segments in scene.segments.items():
        keys = [layout.marker_key(name, segment.index) for segment in segments]
        objects |= dict.fromkeys([*keys, layout.done_key(name), layout.playlist_key(name)], b"")
    objects |= dict.fromkeys((key for keys in table_keys(scene.record) for key in keys), b"")
    made_from = fingerprints(scene.record, list_commits(scene.store))
    objects[layout.parts_key(scene.record.run_id)] = canonical(made_from)
    return scene


class Extended:
    """The run, extended by `more` rows of the same manifest. `planned`: wall and CPU seconds before gangs."""

    def __init__(self, videos: int, more: int):
        self.before = finished(videos)
        self.backend, self.store = self.before.backend, self.before.store
        self.asked = self.backend.requests.copy()
        self.began = time.perf_counter(), time.process_time()
        with measured("plan, with reading and checking the manifest"):
            self.scene = Scene(videos + more, 0.0)

    def run(self) -> Summary:
        scene, connect = self.scene, connector(self.scene.providers, 100)

        def connected(work):
            now = time.perf_counter(), time.process_time()
            self.planned = [then - before for then, before in zip(now, self.began, strict=True)]
            return connect(work)

        terms = Terms(extend=True)
        listener = Together()
        return run(
            self.store, scene.record, scene.requests, scene.specs, RunOptions(), listener, connected, terms=terms
        )

    def made(self) -> Counter[str]:
        """Requests since the extension began."""
        return Counter(requests_of(self.backend, self.asked))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--more", type=int, default=1000)
    options = parser.parse_args()
    extended = Extended(options.videos, options.more)
    with measured("extend and render"):
        summary = extended.run()
    assert summary.exit_code == 0 and len(summary.done) == options.videos + options.more
    print("gangs were asked for after {:.1f} s, {:.1f} of CPU".format(*extended.planned))
    print(f"requests: {dict(extended.made())}")


if __name__ == "__main__":
    main()
