"""The driver at its limits: 100,000 videos on 1,000 gangs that only simulate rendering (`make scale`).

Planning, driver, queue, commit protocol, tables and resume are those of every run. The objects go into a dictionary
that counts the requests and can be made to answer late. Time in the gangs is simulated; the rates are real.
"""

import argparse
import cProfile
import json
import pstats
import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.simulated import CHUNK_SECONDS, SimulatedProvider, connector
from flowcache import api
from flowcache.inputs.options import RunOptions
from flowcache.inputs.schema import RowDefaults
from flowcache.inputs.segments import plan
from flowcache.progress.events import Together
from flowcache.records import ModelSpec
from flowcache.scheduler.driver import Summary, run
from flowcache.storage import layout
from flowcache.storage.objects.backend import Entry
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import new_run
from flowcache.storage.status import status

CHUNKS = (1, 1, 2, 3, 5, 5, 5, 9, 9, 13, 17, 25)  # of a video, drawn at random
PROMPT = "a red circle moving right on a blue background"


class CountingBackend:
    """Objects in a dictionary; see `storage.backend.Backend`. `seconds`: that each of the driver's requests takes."""

    def __init__(self, seconds: float):
        self.seconds, self.objects = seconds, dict[str, bytes]()
        self.requests: Counter[str] = Counter()  # by verb and kind of object, "gang" or "driver" first
        self.pages = 0
        self._lock = threading.Lock()

    def _ask(self, verb: str, key: str) -> None:
        # The gangs' requests are made in the loop's own thread here, where on a cluster they are elsewhere.
        driver = threading.current_thread() is not threading.main_thread()
        with self._lock:
            self.requests[f"{'driver' if driver else 'loop'} {verb} {kind(key)}"] += 1
        if driver and self.seconds:
            time.sleep(self.seconds)

    def check(self) -> None:
        return

    def put(self, key: str, data: bytes) -> None:
        self._ask("put", key)
        self.objects[key] = data

    def create(self, key: str, data: bytes) -> None:
        self._ask("create", key)
        with self._lock:
            if key in self.objects:
                raise FileExistsError(key)
            self.objects[key] = data

    def get(self, key: str) -> bytes:
        self._ask("get", key)
        try:
            return self.objects[key]
        except KeyError:
            raise FileNotFoundError(key) from None

    def size(self, key: str) -> int | None:
        self._ask("size", key)
        return len(self.objects[key]) if key in self.objects else None

    def list(self, prefix: str) -> Iterator[Entry]:
        folder = f"{prefix}/" if prefix else ""
        found = [Entry(key, len(data)) for key, data in list(self.objects.items()) if key.startswith(folder)]
        self.pages += 1 + len(found) // 1000
        self._ask("list", f"{prefix}/")
        return iter(found)

    def leftovers(self, before: float) -> Iterator[Entry]:
        return iter(())

    def delete(self, key: str) -> None:
        self._ask("delete", key)
        self.objects.pop(key, None)

    def passing(self, fault: Exception) -> bool:
        return False

    def of_machine(self, fault: Exception) -> bool:
        return False

    def explain(self, fault: Exception) -> str:
        return str(fault)


def kind(key: str) -> str:
    """What an object is, by its key."""
    folder, _, name = key.partition("/")
    names = {"init.mp4": "init", "index.m3u8": "playlist", "master.m3u8": "master", "DONE.json": "DONE"}
    kinds = {layout.COMMITS: "marker", layout.MEDIA: "media", layout.STATES: "state", layout.OWNER: "owner"}
    return names.get(name.rpartition("/")[2]) or kinds.get(folder, folder)


class Memory(Store):
    """A store over a backend that lives in this process."""

    def __init__(self, backend: CountingBackend):
        super().__init__("memory://scale")
        self._held = backend

    @property
    def backend(self) -> CountingBackend:
        return self._held


class Scene:
    """The manifest, planned, and a store to render it to."""

    def __init__(self, videos: int, seconds: float):
        self.backend = CountingBackend(seconds)
        self.store = Memory(self.backend)
        self.providers: list[SimulatedProvider] = []
        with TemporaryDirectory() as folder:
            path = Path(folder, "night.jsonl")
            path.write_text("".join(rows(videos)))
            with measured("plan") as self.planning:
                self.requests, problems, _, self.specs = api.check(str(path), RowDefaults())
                self.segments = {r.id: plan(r, self.specs[r.model]) for r in self.requests}
                every = [segment for found in self.segments.values() for segment in found]
                digests = {name: spec.digest for name, spec in self.specs.items()}
                self.record = new_run(self.requests, digests, every, "scale")
        assert not problems, problems[:3]
        self.count = len(every)

    def run(self, gangs: int) -> Summary:
        connect = connector(self.providers, gangs)
        return run(self.store, self.record, self.requests, self.specs, RunOptions(), Together(), connect)

    def lower_bound(self, gangs: int) -> float:
        """No schedule is shorter: the work shared out evenly, and the longest chain."""
        chunks = [sum(segment.chunks for segment in found) for found in self.segments.values()]
        return max(sum(chunks) / gangs, max(chunks)) * CHUNK_SECONDS


def rows(videos: int) -> Iterator[str]:
    draw, spec = random.Random(0), ModelSpec("", "", "", "", chunk=3, window=15, overlap=3, channels=16)
    for number in range(videos):
        frames = spec.first_chunk_frames + spec.chunk_frames * (draw.choice(CHUNKS) - 1)
        yield json.dumps({"id": f"v{number:06d}", "prompt": PROMPT, "frames": frames, "seed": number}) + "\n"


@contextmanager
def measured(name: str) -> Iterator[dict[str, float]]:
    """Prints, and gives, the wall and CPU seconds of what is done within, and the process's peak memory so far."""
    found: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    found |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    found["GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{name}: " + ", ".join(f"{value:.1f} {unit}" for unit, value in found.items()), flush=True)


def requests_of(backend: CountingBackend, begin: Counter[str]) -> dict[str, int]:
    return {name: count - begin[name] for name, count in sorted(backend.requests.items()) if count > begin[name]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--gangs", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds that each of the driver's requests takes")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    scene = Scene(options.videos, options.latency)
    print(f"{len(scene.requests):,} videos, {scene.count:,} segments, {options.gangs:,} gangs")
    profile = cProfile.Profile(time.thread_time)  # CPU, so that other work does not matter
    if options.profile:
        profile.enable()
    with measured("run") as running:
        summary = scene.run(options.gangs)
    profile.disable()
    assert summary.exit_code == 0 and len(summary.done) == options.videos
    (provider,) = scene.providers
    bound = scene.lower_bound(options.gangs)
    print(f"makespan {provider.clock:.0f} s, lower bound {bound:.0f} s: {provider.clock / bound:.3f} times")
    made = scene.backend.requests.copy()
    per = {name: f"{count / scene.count:.2f}" for name, count in sorted(made.items()) if count > options.videos / 10}
    print(f"requests for each segment: {per}")
    with measured("resume"):
        again = scene.run(options.gangs)
    assert again.exit_code == 0 and again.rendered == 0 and len(scene.providers) == 1
    print(f"requests to resume: {requests_of(scene.backend, made)}")
    made = scene.backend.requests.copy()
    with measured("status"):
        report = status(scene.store)
    assert report.finished and report.count("done") == options.videos
    print(f"requests for a status: {requests_of(scene.backend, made)}")
    driver = running["cpu"] - provider.worked
    rates = (scene.count / seconds for seconds in (running["wall"], running["cpu"], driver))
    print("segments: {:.0f} a second, {:.0f} a CPU second, {:.0f} a CPU second of the driver alone".format(*rates))
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
