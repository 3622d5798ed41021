"""`flowcache plan`."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from flowcache.cli.common import Endpoint, Json, out, print_json
from flowcache.report.words import duration


def plan(
    manifest: Annotated[str | None, typer.Argument(help="JSONL, CSV or Parquet; a path or any fsspec URL.")] = None,
    job: Annotated[Path | None, typer.Option(help="Job spec (YAML); options given here override it.")] = None,
    model: Annotated[
        str | None, typer.Option(help="For rows without one: a bundled name or checkpoint folder.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="For rows without one, as in render.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Ranks in all; else those of the job, or one gang.")] = None,
    gang: Annotated[int | None, typer.Option(min=1, help="Ranks that render one video together.")] = None,
    like: Annotated[
        str | None, typer.Option(help="Output of an earlier run on such machines: estimate time by its timings.")
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(min=1e-3, help="TFLOP/s that a GPU can do at most: estimate time by them.")
    ] = None,
    efficiency: Annotated[float, typer.Option(min=0.01, max=1.0, help="What is reached of --tflops.")] = 0.4,
    until: Annotated[str | None, typer.Option(help="07:00, or a date and time: will it be done by then?")] = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """What a manifest costs before anything is rendered: segments, chunk forwards, FLOPs, K/V memory, and time.

    Counted by walking the schedule without weights: of each model only its configuration is read. The time
    is estimated where --like or --tflops says how fast the machines are.

        flowcache plan night.jsonl --gpus 64 --gang 4 --like s3://bucket/last-night --until 07:00
    """
    from flowcache.api import plan as plan_requests
    from flowcache.job import merged

    # Nothing is written, so a manifest alone will do.
    spec = merged(
        job, manifest=manifest, model=model, policy=policy, gang=gang, **({} if job else {"output": "unused"})
    )
    cluster = None
    if gpus or like or tflops or until:
        speed = {"like": like, "endpoint_url": endpoint_url, "tflops": tflops, "efficiency": efficiency}
        cluster = cluster_of(gpus or spec.gang * (spec.gangs or 1), spec.gang, until, speed)
    cost = plan_requests(spec.manifest, defaults=spec.row_defaults(), cluster=cluster)
    if as_json:
        print_json(asdict(cost))
        return
    print_work(cost)
    if cost.estimate:
        print_estimate(cost.estimate)


def cluster_of(gpus: int, gang: int, until: str | None, speed: dict[str, Any]) -> Any:
    from flowcache.batch.estimate import Cluster
    from flowcache.deadline import deadline
    from flowcache.errors import InputError, Problem

    try:
        return Cluster(gpus, gang, deadline=deadline(until) if until else None, **speed)
    except ValueError as error:
        raise InputError([Problem("--until", "", str(error))]) from None


def print_work(cost: Any) -> None:
    table = Table("", "chunk forwards", "PFLOPs", "K/V of a window", box=None)
    rows = {f"policy {name}, without reuse": work for name, work in cost.without_reuse.items()}
    rows |= {"as asked, at most": cost.most, "as asked, at least": cost.least}
    for name, work in rows.items():
        table.add_row(
            escape(name), f"{work.forwards:,}", f"{work.flops / 1e15:,.4g}", f"{work.kv_bytes / 2**20:,.1f} MiB"
        )
    out.print(f"{cost.videos} videos, {cost.segments} segments, {cost.chunks} chunks, {cost.frames:,} frames")
    out.print(table)


def print_estimate(estimate: Any) -> None:
    def between(low: float, high: float, text: Any) -> str:
        return text(high) if text(low) == text(high) else f"{text(low)} to {text(high)}"

    hours = between(*estimate.gpu_hours, lambda hours: f"{hours:,.3g}")
    took = between(estimate.fastest, estimate.slowest, duration)
    out.print(f"about {took} on {estimate.gpus} GPUs (or ranks without), {hours} GPU hours", markup=False)
    if estimate.deadline is not None:
        by = time.strftime("%Y-%m-%d %H:%M", time.localtime(estimate.deadline))
        out.print(f"done by {by} if started now: {estimate.in_time}", markup=False)
    for note in estimate.rests_on:
        out.print(f"- {note}", markup=False)
