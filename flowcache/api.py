"""The Python interface, which the command line calls too."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import flowcache
from flowcache.errors import InputError, Problem, masked
from flowcache.families.check import doubts, sound
from flowcache.families.registry import load_model
from flowcache.families.settings import policy_faults
from flowcache.inputs.manifest import validate
from flowcache.inputs.options import RunOptions
from flowcache.inputs.readers import rows_of
from flowcache.inputs.sandbox import Sandbox
from flowcache.inputs.schema import RowDefaults
from flowcache.inputs.segments import plan as segments_of
from flowcache.inputs.selection import EVERY, Selection
from flowcache.inputs.told import Told
from flowcache.planner.advice import check_gang
from flowcache.planner.estimate import Cluster
from flowcache.planner.hardware import Link, Node
from flowcache.planner.plan import Plan
from flowcache.planner.plan import plan as plan_of
from flowcache.progress.events import Listener, Note, Together
from flowcache.progress.webhook import checked as checked_webhook
from flowcache.progress.webhook import webhook as webhooks
from flowcache.records import MediaInfo, ModelSpec, RenderRequest, Segment
from flowcache.runtime.cluster import ray_provider
from flowcache.runtime.metrics import RunMetrics
from flowcache.scheduler.driver import Summary, run
from flowcache.scheduler.joining import Rows
from flowcache.storage.control import Command
from flowcache.storage.documents import RunRecord
from flowcache.storage.growth import Terms
from flowcache.storage.objects.store import Store
from flowcache.storage.orders import manifest_of
from flowcache.storage.outlook import Outlook, outlook, renamed
from flowcache.storage.repair import mend
from flowcache.storage.runs import new_run
from flowcache.storage.withdrawal import finish_withdrawals

__all__ = [
    "Cluster", "Link", "Node", "Outlook", "Plan", "RowDefaults", "RunOptions", "Selection", "Summary", "check",
    "load_model", "plan", "preview", "render",
]  # fmt: skip

Requests = str | Sequence[Mapping[str, Any]]


def render(
    requests: Requests,
    *,
    output: str,
    defaults: RowDefaults | None = None,
    options: RunOptions | None = None,
    keep_going: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Listener | None = None,
    warn: Callable[[Problem], None] = lambda problem: None,
    media: Mapping[str, str] | None = None,
    repair: bool = False,
    extend: bool = False,
    rename: str | None = None,
    selection: Selection = EVERY,
    webhook: str | None = None,
) -> Summary:
    """Render every request below `output`, or what is missing of them there.

    requests: path or URL of a manifest (JSONL, CSV, Parquet), or rows as mappings (docs/manifest.md).
    output: folder or URL (s3://, gs://, az://); it holds one run and can be given again to go on with it.
    defaults: what rows without a value of their own get; options: how to run (gangs, device, retries).
    keep_going: render the good rows although others are bad, and record the bad ones.
    storage_options: for the output's fsspec filesystem, such as endpoint_url; s3:// inputs are opened with them too.
    progress: its `on` is called with every event of the run (flowcache.progress.events).
    media: where pictures and videos lie that lie elsewhere than the requests say, by what those say.
    repair: first withdraw what is damaged below the output (flowcache.storage.repair).
    extend: rows that are not yet in the output's run become part of it, and those of which nothing is rendered may
    differ. rename: id of the row that differs from what is rendered ("{id}" in it: its own), which is rendered anew.
    selection: which rows are meant, and what all are given.
    webhook: http(s) address that is told of what becomes of the run and its videos (flowcache.progress.webhook).

    Raises InputError with every fault before anything is started, StoreError if the output can't be
    used or does not show in the end what the run did, ClusterError if no gang comes up. Videos that fail are in
    the Summary, not raised.
    """
    options = options or RunOptions()
    if webhook is not None:
        checked_webhook(webhook, os.environ)
    given = Given(requests, defaults or RowDefaults(), selection, storage_options, media, options.allow_private_media)
    asked = _asked(given, output, options, keep_going, extend, rename, warn)

    def plan_rows(command: Command) -> Rows:
        with manifest_of(asked.store, command) as place:
            more = replace(given, requests=place, called=command.name, selection=EVERY, media=None)
            return Rows(*_asked(more, output, options, keep_going, True, None, warn).joining)

    every = [RunMetrics()] if progress is None else [progress, RunMetrics()]
    prepare = mend if repair else lambda store, hold: finish_withdrawals(store)
    with webhooks(webhook, os.environ, lambda lost: Together(*every).on(Note(lost))) as hooks:
        told = Together(*every, *hooks)
        return run(asked.store, *asked.joining[:3], options, told, ray_provider, prepare, asked.terms, plan_rows)


def preview(
    requests: Requests,
    *,
    output: str,
    defaults: RowDefaults | None = None,
    options: RunOptions | None = None,
    keep_going: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    warn: Callable[[Problem], None] = lambda problem: None,
    media: Mapping[str, str] | None = None,
    extend: bool = False,
    rename: str | None = None,
    selection: Selection = EVERY,
) -> Outlook:
    """What `render` would do with the same arguments, row by row. Starts and writes nothing; raises as `render` does,
    but for what differs from the output's run, which is part of the answer."""
    options = options or RunOptions()
    given = Given(requests, defaults or RowDefaults(), selection, storage_options, media, options.allow_private_media)
    asked = _asked(given, output, options, keep_going, extend, rename, warn)
    return outlook(asked.store, asked.record, asked.segments, asked.terms, options.retry_failed)


@dataclass(frozen=True)
class Given:
    """Rows, and what is needed to read and check them; as in `render` and `check`."""

    requests: Requests
    defaults: RowDefaults
    selection: Selection
    access: Mapping[str, Any] | None = None
    media: Mapping[str, str] | None = None
    private: bool = False
    called: str | None = None

    @property
    def name(self) -> str:
        """How problems name them."""
        if self.called is not None:
            return self.called
        return self.requests if isinstance(self.requests, str) else "requests"


@dataclass(frozen=True)
class _Asked:
    """A run before it begins."""

    store: Store
    record: RunRecord
    requests: list[RenderRequest]
    segments: list[Segment]
    specs: dict[str, ModelSpec]
    terms: Terms

    @property
    def joining(self) -> tuple[RunRecord, list[RenderRequest], dict[str, ModelSpec], Terms]:
        """As `Rows` has them."""
        return self.record, self.requests, self.specs, self.terms


def _asked(
    given: Given,
    output: str,
    options: RunOptions,
    keep_going: bool,
    extend: bool,
    rename: str | None,
    warn: Callable[[Problem], None],
) -> _Asked:
    store, places = Store(output, **(given.access or {})), dict[str, int]()
    good, problems, warnings, specs = _check(given, keep_going, places)
    problems += options.faults(specs.values()) + check_gang(good, specs, options.gang)
    for warning in warnings:
        warn(warning)
    if problems and not (keep_going and good and all(problem.row for problem in problems)):
        raise InputError(problems)
    digests = {name: spec.digest for name, spec in specs.items()}
    terms = Terms(extend, not given.selection.all, masked(given.name), places)

    def planned() -> tuple[list[Segment], RunRecord]:
        segments = [segment for request in good for segment in segments_of(request, specs[request.model])]
        return segments, new_run(good, digests, segments, flowcache.__version__, problems, options.numerics)

    segments, record = planned()
    if rename and (other := renamed(store, good, record, rename)):
        places |= {new.id: places[old.id] for new, old in zip(other, good, strict=True)}
        good = other
        segments, record = planned()
    return _Asked(store, record, good, segments, specs, terms)


def plan(
    requests: Requests,
    *,
    defaults: RowDefaults | None = None,
    cluster: Cluster | None = None,
    storage_options: Mapping[str, Any] | None = None,
    allow_private_media: bool = False,
    selection: Selection = EVERY,
) -> Plan:
    """What rendering the requests takes, without weights: segments, chunk forwards, FLOPs, memory, and gang by gang.

    cluster: what is to render it; where it says how fast, also an estimate of the time. storage_options: what s3://
    inputs are opened with; allow_private_media: as in RunOptions; selection: as in `render`. Raises InputError with
    every fault of the requests.
    """
    cluster, now = cluster or Cluster(), time.time()
    given = Given(requests, defaults or RowDefaults(), selection, storage_options, private=allow_private_media)
    good, problems, _, specs = _check(given)
    problems += cluster.faults() + check_gang(good, specs, cluster.gang)
    if problems:
        raise InputError(problems)
    return plan_of(good, specs, cluster, now)


def check(
    requests: Requests,
    defaults: RowDefaults,
    access: Mapping[str, Any] | None = None,
    media: Mapping[str, str] | None = None,
    private: bool = False,
    thorough: bool = False,
) -> tuple[list[RenderRequest], list[Problem], list[Problem], dict[str, ModelSpec]]:
    """Requests, faults, warnings, and the specs of the models that the good requests name. Starts nothing.

    access: what s3:// URLs of the manifest and in it are opened with. media: as for `render`. private: media may lie at
    any address. thorough: see `validate`.
    """
    return _check(Given(requests, defaults, EVERY, access, media, private), thorough)


def _check(
    given: Given, thorough: bool = False, places: dict[str, int] | None = None
) -> tuple[list[RenderRequest], list[Problem], list[Problem], dict[str, ModelSpec]]:
    """`check`. places: is told in which row each request stands, by id."""
    specs: dict[str, ModelSpec] = {}
    doubted: list[Problem] = []

    def spec_of(name: str) -> ModelSpec:
        specs[name] = sound(name)
        doubted.extend(doubts(specs[name]))
        return specs[name]

    requests, selection, told = given.requests, given.selection, Told()
    with Sandbox(given.access, given.private) as sandbox:

        def probe(url: str, kind: str) -> MediaInfo:
            return sandbox.probe(
                (given.media or {}).get(url, url), kind, "" if given.name == "requests" else given.name
            )

        rows = rows_of(requests, sandbox, told) if isinstance(requests, str) else enumerate(map(dict, requests), 1)
        rows = selection.rows(rows)
        found = validate(rows, given.name, spec_of, given.defaults, probe, told, thorough, places)
    good, problems, warnings = selection.requests(found[0]), *found[1:]
    if not isinstance(requests, str) and not requests:
        problems.append(Problem("requests", "", "is empty; accepted: at least one row"))
    else:
        problems += selection.faults(found[0], problems, masked(given.name))
    used = {request.model for request in good}
    problems += policy_faults(good, specs, masked(given.name))
    return good, problems, doubted + warnings, {name: spec for name, spec in specs.items() if name in used}
