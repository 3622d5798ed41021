"""The Python interface, which the command line calls too."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import flowcache
from flowcache.errors import InputError, Problem, masked
from flowcache.families.registry import load_model
from flowcache.inputs.adapt import Embedded
from flowcache.inputs.given import Given, checked
from flowcache.inputs.options import RunOptions
from flowcache.inputs.output_url import check_root, within_checkpoints
from flowcache.inputs.python_rows import Requests
from flowcache.inputs.schema import RowDefaults
from flowcache.inputs.segments import plan as segments_of
from flowcache.inputs.selection import EVERY, Selection
from flowcache.planner.advice import check_gang
from flowcache.planner.estimate import Cluster
from flowcache.planner.hardware import Link, Node
from flowcache.planner.plan import Plan
from flowcache.planner.plan import plan as plan_of
from flowcache.progress.events import Listener, Note, Together
from flowcache.progress.webhook import checked as checked_webhook
from flowcache.progress.webhook import webhook as webhooks
from flowcache.records import ModelSpec, RenderRequest, Segment
from flowcache.report.page import Limits, link_base, report_page
from flowcache.runtime.cluster import ray_provider
from flowcache.runtime.metrics import RunMetrics
from flowcache.scheduler.background import FinishedVideo, Run
from flowcache.scheduler.driver import Summary, run
from flowcache.scheduler.joining import Rows
from flowcache.scheduler.stopping import Stopping
from flowcache.storage.control import Command
from flowcache.storage.documents import RunRecord
from flowcache.storage.given_media import kept, put
from flowcache.storage.growth import Terms
from flowcache.storage.layout import playlist_key
from flowcache.storage.objects.store import Store
from flowcache.storage.orders import manifest_of
from flowcache.storage.outlook import Outlook, outlook, renamed
from flowcache.storage.ownership import Hold
from flowcache.storage.repair import mend
from flowcache.storage.runs import new_run
from flowcache.storage.status import StatusReport
from flowcache.storage.status import status as status_of
from flowcache.storage.withdrawal import finish_withdrawals

__all__ = [
    "Cluster", "FinishedVideo", "Link", "Node", "Outlook", "Plan", "RowDefaults", "Run", "RunOptions", "Selection",
    "StatusReport", "Summary", "check", "html_report", "load_model", "plan", "preview", "render", "start", "status",
]  # fmt: skip


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

    requests: path or URL of a manifest or folder, a row or rows as mappings, prompts, or a table: pandas, Arrow, Ray
    Data, Hugging Face (docs/manifest.md). Of a list, texts are prompts and Path objects manifests.
    output: folder or URL (s3://, gs://, az://); it holds one run and can be given again to go on with it.
    defaults: what rows without a value of their own get; options: how to run (gangs, device, retries).
    keep_going: render the good rows although others are bad, and record the bad ones.
    storage_options: for the output's fsspec filesystem, such as endpoint_url; s3:// inputs are opened with them too.
    progress: its `on` is called with every event of the run (flowcache.progress.events).
    media: where pictures and videos lie that lie elsewhere than the requests say, by what those say.
    repair: first withdraw what is damaged below the output (flowcache.storage.repair).
    extend: rows that are not yet in the output's run become part of it, and those of which nothing is rendered may
    differ. rename: id of the row that differs from what is rendered ("{id}" in it: its own), which is rendered anew.
    selection: which rows are meant, what all are given, and how strictly they are read.
    webhook: http(s) address that is told of what becomes of the run and its videos (flowcache.progress.webhook).

    Raises InputError with every fault before anything is started, StoreError if the output can't be
    used or does not show in the end what the run did, ClusterError if no gang comes up. Videos that fail are in
    the Summary, not raised.
    """
    how = How(
        defaults=defaults, options=options, keep_going=keep_going, storage_options=storage_options, warn=warn,
        media=media, extend=extend, rename=rename, selection=selection, webhook=webhook,
    )  # fmt: skip
    asked = _asking(requests, output, how)
    with _listeners(progress, webhook) as listeners:
        return asked.run(Together(*listeners), repair)


@contextmanager
def _listeners(progress: Listener | None, webhook: str | None) -> Iterator[list[Listener]]:
    own: list[Listener] = [progress] if progress else []
    with webhooks(webhook, os.environ, lambda lost: Together(*own).on(Note(lost))) as hooks:
        yield [*own, *hooks]


class How(TypedDict, total=False):
    """What `render`, `start` and `preview` are told besides rows and output: see `render`."""

    defaults: RowDefaults | None
    options: RunOptions | None
    keep_going: bool
    storage_options: Mapping[str, Any] | None
    warn: Callable[[Problem], None]
    media: Mapping[str, str] | None
    extend: bool
    rename: str | None
    selection: Selection
    webhook: str | None


def start(
    requests: Requests,
    *,
    output: str,
    progress: Listener | None = None,
    repair: bool = False,
    **how: Unpack[How],
) -> Run:
    """`render` in a thread of this process: returns as soon as the requests are checked, and raises what is wrong with
    them. The Run is waited for, cancelled, and iterated over for each video as it is finished."""
    asked = _asking(requests, output, how)
    stopping = Stopping(asked.options)

    def work(listener: Listener) -> Summary:
        with _listeners(progress, how.get("webhook")) as listeners:
            return asked.run(Together(listener, *listeners), repair, stopping)

    return Run(work, stopping, lambda video: masked(asked.store.uri(playlist_key(video))))


def preview(requests: Requests, *, output: str, **how: Unpack[How]) -> Outlook:
    """What `render` would do with the same arguments, row by row. Starts and writes nothing; raises as `render` does,
    but for what differs from the output's run, which is part of the answer."""
    asked = _asking(requests, output, how)
    return outlook(asked.store, asked.record, asked.segments, asked.terms, asked.options.retry_failed)


@dataclass(frozen=True)
class _Asked:
    """A run before it begins. media: that came inside the manifest, by name."""

    store: Store
    record: RunRecord
    requests: list[RenderRequest]
    segments: list[Segment]
    specs: dict[str, ModelSpec]
    terms: Terms
    options: RunOptions
    media: Embedded
    more: Callable[[Command], "_Asked"]  # reads the manifest that somebody adds, as this one was

    def rows(self, command: Command) -> Rows:
        """What somebody adds; media that came inside are in the store then."""
        found = self.more(command)
        put(self.store, found.media.files)
        return Rows(found.record, found.requests, found.specs, found.terms)

    def run(self, progress: Listener, repair: bool, stopping: Stopping | None = None) -> Summary:
        def prepare(store: Store, hold: Hold) -> None:
            put(store, self.media.files)
            if repair:
                mend(store, hold)
            else:
                finish_withdrawals(store)

        return run(
            self.store,
            self.record,
            self.requests,
            self.specs,
            self.options,
            Together(progress, RunMetrics()),
            ray_provider,
            prepare,
            self.terms,
            stopping,
            self.rows,
        )


def _asking(requests: Requests, output: str, how: How) -> _Asked:
    """A run of these rows. What is not said is as `render` has it."""
    options, webhook = how.get("options") or RunOptions(), how.get("webhook")
    if webhook is not None:
        checked_webhook(webhook, os.environ)
    given = Given(
        requests, how.get("defaults") or RowDefaults(), how.get("selection", EVERY), how.get("storage_options"),
        how.get("media"), options.allow_private_media,
    )  # fmt: skip
    terms = how.get("keep_going", False), how.get("extend", False), how.get("rename")
    return _asked(given, output, options, *terms, how.get("warn", lambda problem: None))


def _asked(
    given: Given,
    output: str,
    options: RunOptions,
    keep_going: bool,
    extend: bool,
    rename: str | None,
    warn: Callable[[Problem], None],
) -> _Asked:
    store, found = Store(output, **(given.access or {})), checked(given, keep_going)
    good, specs, places = found.requests, found.specs, dict(found.places)
    problems = found.problems + options.faults(specs.values()) + check_gang(good, specs, options.gang)
    problems += within_checkpoints(output, (spec.path for spec in specs.values()))
    good = kept(store, good, given.embedded.files)
    for warning in found.warnings:
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

    def more(command: Command) -> _Asked:
        with manifest_of(store, command) as place:
            rows = Given(place, given.defaults, access=given.access, private=given.private, called=command.name)
            return _asked(rows, output, options, keep_going, True, None, warn)

    return _Asked(store, record, good, segments, specs, terms, options, given.embedded, more)


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
    found = checked(given)
    good, specs = found.requests, found.specs
    problems = found.problems + cluster.faults() + check_gang(good, specs, cluster.gang)
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
    found = checked(Given(requests, defaults, EVERY, access, media, private), thorough)
    return found.requests, found.problems, found.warnings, found.specs


def status(output: str, *, storage_options: Mapping[str, Any] | None = None) -> StatusReport:
    """How far a run is, read from its store alone. InputError: nothing can be there, or no run is; StoreError."""
    check_root(output)
    return status_of(Store(output, **(storage_options or {})))


def html_report(
    output: str,
    *,
    to: str | Path | None = None,
    base_url: str | None = None,
    limits: Limits | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> str:
    """The page of `flowcache report`, as HTML; written to the file `to`, where one is named.

    base_url: where browsers find the output; limits: how many videos in full, how many bytes of them in the page.
    InputError, StoreError.
    """
    check_root(output)
    store, page = Store(output, **(storage_options or {})), Path(os.path.expanduser(to or "report.html"))
    html = report_page(store, link_base(store, page, base_url), limits or Limits())
    if to is not None:
        page.write_text(html, errors="backslashreplace")
    return html
