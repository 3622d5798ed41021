"""A run over simulated gangs: store, requests and what was told. No model, no Ray."""

import uuid

from benchmarks.simulated import connector
from flowcache.inputs.options import RunOptions
from flowcache.inputs.segments import plan
from flowcache.progress.events import Note, SegmentCommitted, SegmentFailed
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.scheduler.driver import run
from flowcache.scheduler.joining import Rows
from flowcache.storage.growth import Terms
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import PLAIN, new_run
from flowcache.storage.verify import verify

SPEC = ModelSpec("tiny", "skyreels", "", "d" * 64, chunk=3, window=15, overlap=3, channels=16)
MODEL = "tiny-skyreels"
ONE_SEGMENT, TWO_SEGMENTS = 57, 105  # frames: 5 chunks; 5 and 4


def request(name: str, frames: int = TWO_SEGMENTS, **fields) -> RenderRequest:
    return RenderRequest(
        name, (Shot("p", frames),), 64, 64, 12, 1, 3.0, 4, model=MODEL, policy={"name": "off"}, **fields
    )


def brings(*requests):
    """Reads the manifest of any `add` as these."""

    def plan_rows(command):
        segments = [segment for one in requests for segment in plan(one, SPEC)]
        record = new_run(requests, {MODEL: SPEC.digest}, segments, "0")
        return Rows(
            record, list(requests), {MODEL: SPEC}, Terms(manifest="more.jsonl", rows={"cat": ("more.jsonl", 1)})
        )

    return plan_rows


class Notes:
    """What was committed, in order; causes of failures and whether there is another attempt; notes."""

    def __init__(self):
        self.order: list[tuple[str, int]] = []
        self.causes: list[str] = []
        self.again: list[bool] = []
        self.said: list[str] = []

    def on(self, event):
        match event:
            case SegmentCommitted():
                self.order.append((event.video, event.segment))
            case SegmentFailed():
                self.causes.append(event.cause)
                self.again.append(event.again)
            case Note():
                self.said.append(event.message)


class Studio:
    """A store and requests; each `run` is a driver of its own."""

    def __init__(self, *requests: RenderRequest, store: Store | None = None):
        self.store, self.requests = store or Store(f"memory://{uuid.uuid4().hex}"), list(requests)
        self.segments = [segment for request in requests for segment in plan(request, SPEC)]
        self.providers, self.notes = [], Notes()

    @property
    def provider(self):
        return self.providers[-1]

    def run(self, size: int = 1, connect=None, terms: Terms = PLAIN, plan_rows=None, **settings):
        options = {name: settings.pop(name) for name in list(settings) if name in RunOptions.__dataclass_fields__}
        record = new_run(self.requests, {MODEL: SPEC.digest}, self.segments, "0")
        connect = connect or connector(self.providers, size, **settings)
        given = self.store, record, self.requests, {MODEL: SPEC}, RunOptions(**options), self.notes, connect
        return run(*given, terms=terms, plan_rows=plan_rows)


def sound(store: Store) -> dict[str, int]:
    report = verify(store, decode=False)
    assert report.sound, report.problems
    return report.counts
