"""The Python interface, which the command line calls too."""

import time
from collections.abc import Callable, Mapping, Sequence
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
from flowcache.inputs.told import Told
from flowcache.planner.advice import check_gang
from flowcache.planner.estimate import Cluster
from flowcache.planner.hardware import Link, Node
from flowcache.planner.plan import Plan
from flowcache.planner.plan import plan as plan_of
from flowcache.progress.events import Listener, Together
from flowcache.records import MediaInfo, ModelSpec, RenderRequest
from flowcache.runtime.cluster import ray_provider
from flowcache.runtime.metrics import RunMetrics
from flowcache.scheduler.driver import Summary, run
from flowcache.storage.objects.store import Store
from flowcache.storage.repair import mend
from flowcache.storage.runs import new_run
from flowcache.storage.withdrawal import finish_withdrawals

__all__ = [
    "Cluster", "Link", "Node", "Plan", "RowDefaults", "RunOptions", "Summary", "check", "load_model", "plan", "render",
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

    Raises InputError with every fault before anything is started, StoreError if the output can't be
    used or does not show in the end what the run did, ClusterError if no gang comes up. Videos that fail are in
    the Summary, not raised.
    """
    options, store = options or RunOptions(), Store(output, **(storage_options or {}))
    private = options.allow_private_media
    found = check(requests, defaults or RowDefaults(), storage_options, media, private, keep_going)
    good, problems, warnings, specs = found
    problems += options.faults(specs.values()) + check_gang(good, specs, options.gang)
    for warning in warnings:
        warn(warning)
    if problems and not (keep_going and good and all(problem.row for problem in problems)):
        raise InputError(problems)
    segments = [segment for request in good for segment in segments_of(request, specs[request.model])]
    digests = {name: spec.digest for name, spec in specs.items()}
    record = new_run(good, digests, segments, flowcache.__version__, problems, options.numerics)
    listeners = [RunMetrics()] if progress is None else [progress, RunMetrics()]
    return run(
        store,
        record,
        good,
        specs,
        options,
        Together(*listeners),
        ray_provider,
        mend if repair else lambda store, hold: finish_withdrawals(store),
    )


def plan(
    requests: Requests,
    *,
    defaults: RowDefaults | None = None,
    cluster: Cluster | None = None,
    storage_options: Mapping[str, Any] | None = None,
    allow_private_media: bool = False,
) -> Plan:
    """What rendering the requests takes, without weights: segments, chunk forwards, FLOPs, memory, and gang by gang.

    cluster: what is to render it; where it says how fast, also an estimate of the time. storage_options: what s3://
    inputs are opened with; allow_private_media: as in RunOptions. Raises InputError with every fault of the requests.
    """
    cluster, now = cluster or Cluster(), time.time()
    good, problems, _, specs = check(requests, defaults or RowDefaults(), storage_options, private=allow_private_media)
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
    specs: dict[str, ModelSpec] = {}
    doubted: list[Problem] = []

    def spec_of(name: str) -> ModelSpec:
        specs[name] = sound(name)
        doubted.extend(doubts(specs[name]))
        return specs[name]

    file, told = requests if isinstance(requests, str) else "requests", Told()
    with Sandbox(access, private) as sandbox:

        def probe(url: str, kind: str) -> MediaInfo:
            return sandbox.probe((media or {}).get(url, url), kind, requests if isinstance(requests, str) else "")

        rows = rows_of(requests, sandbox, told) if isinstance(requests, str) else enumerate(map(dict, requests), 1)
        good, problems, warnings = validate(rows, file, spec_of, defaults, probe, told, thorough)
    if not isinstance(requests, str) and not requests:
        problems.append(Problem(file, "", "is empty; accepted: at least one row"))
    used = {request.model for request in good}
    problems += policy_faults(good, specs, masked(file))
    return good, problems, doubted + warnings, {name: spec for name, spec in specs.items() if name in used}
