"""`flowcache plan`."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from flowcache.cli import options
from flowcache.cli.common import Endpoint, Json, out, print_json
from flowcache.cli.selecting import Chosen, selecting
from flowcache.report.words import duration, size

if TYPE_CHECKING:
    from flowcache.inputs.job import JobSpec
    from flowcache.planner.advice import Advice
    from flowcache.planner.cost import Cost
    from flowcache.planner.estimate import Cluster, Estimate
    from flowcache.planner.plan import Plan

# Of a `GangCost`. A step is one of one chunk, guidance included.
GANG_ROWS = {
    "  heads x history": lambda cost: f"{cost.heads} x {cost.history}",
    "  K/V of a rank": lambda cost: size(cost.memory.keys_values),
    "  residuals of a rank": lambda cost: size(cost.memory.residuals),
    "  all memory of a rank": lambda cost: size(cost.memory.total),
    "  a rank sends in a step": lambda cost: size(cost.step_bytes),
    "  a step computes": lambda cost: f"{cost.compute * 1e3:,.1f} ms",
    "  a step exchanges": lambda cost: f"{cost.exchange * 1e3:,.1f} ms",
    "  efficiency": lambda cost: f"{cost.efficiency:.0%}",
}


MARKED = "each video says in its metadata that AI made it; nothing is signed before `flowcache sign` or `export --sign`"
UNMARKED = "its frames carry no invisible mark (--watermark)"
WATERMARKED = "its frames carry an invisible mark by {}"


@selecting
def plan(
    manifest: options.Manifest = None,
    job: options.Job = None,
    model: options.Model = None,
    policy: options.PlanPolicy = None,
    gpus: options.Gpus = None,
    gang: options.Gang = None,
    shard_weights: options.PlanShardWeights = None,
    dtype: options.Dtype = None,
    weights: options.Weights = None,
    vae_dtype: options.VaeDtype = None,
    vae_tiling: options.VaeTiling = None,
    watermark: options.Watermark = None,
    like: options.Like = None,
    tflops: options.Tflops = None,
    efficiency: options.Efficiency = 0.4,
    link: options.Link = "nvlink4",
    gpu_memory: options.GpuMemory = "80GB",
    node_gpus: options.NodeGpus = 8,
    until: options.PlanUntil = None,
    allow_private_media: options.AllowPrivateMedia = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
    *,
    chosen: Chosen,
) -> None:
    """What a manifest costs before anything is rendered: segments, chunk forwards, FLOPs, memory, gangs, and time.

    Counted by walking the schedule without weights: of each model only its configuration is read. The time
    is estimated where --like or --tflops says how fast the machines are. With --gpus a table compares gangs of 1, 2,
    4 and 8 ranks (and --gang): what they send and hold, how well they work, how long they take; and one is recommended.

        flowcache plan night.jsonl --gpus 64 --gang 4 --like s3://bucket/last-night --until 07:00
    """
    from flowcache.api import plan as plan_requests
    from flowcache.inputs.job import merged
    from flowcache.inputs.sources import Manifests

    rest = {} if job else {"output": "unused"}  # nothing is written, so a manifest alone will do
    asked = {"policy": policy, "gang": gang, "shard_weights": shard_weights, "dtype": dtype, "weights": weights}
    asked |= {"vae_dtype": vae_dtype, "vae_tiling": vae_tiling, "allow_private_media": allow_private_media}
    asked |= {"watermark": watermark}
    spec = merged(job, manifest=manifest or None, model=model, **asked, **rest)
    cluster = cluster_of(
        {"--link": link, "--gpu-memory": gpu_memory, "--until": until},
        node_gpus=node_gpus,
        like=like,
        endpoint_url=endpoint_url,
        tflops=tflops,
        efficiency=efficiency,
        **of_job(spec, gpus, timed=bool(gpus or like or tflops or until)),
    )
    access = {"endpoint_url": endpoint_url} if endpoint_url else {}
    how = {"storage_options": access, "allow_private_media": spec.allow_private_media}
    how |= {"selection": chosen.rows}
    found = plan_requests(Manifests(spec.manifest), defaults=spec.row_defaults(), cluster=cluster, **how)
    if as_json:
        print_json(as_document(found, spec.watermark))
    else:
        print_plan(found, cluster.gang, compared=gpus is not None, watermark=spec.watermark)


def as_document(plan: "Plan", watermark: str | None) -> dict[str, Any]:
    document = asdict(plan)
    rest = {key: document[key] for key in ("estimate", "gangs")}
    return document["cost"] | rest | {"signed": False, "watermark": watermark}


def of_job(spec: "JobSpec", gpus: int | None, timed: bool) -> dict[str, Any]:
    """What a job says of its cluster. timed: its gangs count where time is asked for."""
    from flowcache.records import Precision

    return {
        "gpus": gpus or (spec.gang * spec.gangs if timed and spec.gangs else None),
        "gang": spec.gang,
        "sharded": spec.shard_weights,
        "precision": Precision(spec.dtype, spec.weights, spec.vae_dtype),
        "tiling": spec.vae_tiling,
    }


def cluster_of(written: dict[str, str | None], node_gpus: int, **given: Any) -> "Cluster":
    """written: options that are texts. InputError with all that can't be read."""
    from flowcache.errors import InputError, Problem
    from flowcache.inputs.deadline import deadline
    from flowcache.planner.estimate import Cluster
    from flowcache.planner.hardware import Node, parse_link, parse_size

    read, problems = {}, []
    for (option, text), parse in zip(written.items(), (parse_link, parse_size, deadline), strict=True):
        try:
            read[option] = None if text is None else parse(text)
        except ValueError as error:
            problems.append(Problem(option, "", str(error)))
    if problems:
        raise InputError(problems)
    node = Node(node_gpus, read["--gpu-memory"], read["--link"])
    return Cluster(**given, deadline=read["--until"], node=node)


def print_plan(plan: "Plan", gang: int, compared: bool, watermark: str | None = None) -> None:
    """gang: ranks that were asked for. compared: whether gangs of other sizes are shown beside it. watermark: what
    frames are marked with."""
    print_answer(plan, gang)
    print_work(plan.cost)
    if compared:
        print_gangs(plan.gangs)
    elif plan.gangs.recommended != gang:
        print_recommended(plan.gangs)
    notes = (*(plan.gangs.rests_on if compared else ()), *(plan.estimate.rests_on if plan.estimate else ()))
    for note in dict.fromkeys((*notes, MARKED, WATERMARKED.format(watermark) if watermark else UNMARKED)):
        out.print(f"- {note}", markup=False)


def print_answer(plan: "Plan", gang: int) -> None:
    """How much it is, what a rank of the gang holds, and how long it takes."""
    cost, asked = plan.cost, next(option for option in plan.gangs.options if option.ranks == gang)
    forwards = between(cost.least.forwards, cost.most.forwards, lambda count: f"{count:,}")
    out.print(
        f"{cost.videos:,} videos, {cost.segments:,} segments, {cost.chunks:,} chunks, {cost.frames:,} frames: "
        f"{forwards} chunk forwards",
        soft_wrap=True,
    )
    if asked.problem:
        out.print(f"no gangs of {gang}: {asked.problem}", markup=False)
    else:
        held = size(max(each.memory.total for each in asked.costs))
        out.print(f"a rank holds about {held}: a GPU's memory, or a process's without one", markup=False)
    if plan.estimate:
        print_estimate(plan.estimate)
    else:
        out.print(
            "how long: say --like OUTPUT (an earlier run on such machines) or --tflops; with --gpus gangs are compared"
        )
    out.print()


def print_work(cost: "Cost") -> None:
    table = Table("", "chunk forwards", "PFLOPs", "K/V of a window", box=None)
    rows = {f"policy {name}, without reuse": work for name, work in cost.without_reuse.items()}
    rows |= {"as asked, at most": cost.most, "as asked, at least": cost.least}
    for name, work in rows.items():
        table.add_row(
            escape(name), f"{work.forwards:,}", f"{work.flops / 1e15:,.4g}", f"{work.kv_bytes / 2**20:,.1f} MiB"
        )
    out.print(table)
    for told, count in cost.sampling.items():
        out.print(f"{count:,} segments: {told}", markup=False)


def print_gangs(advice: "Advice") -> None:
    """A column for each size; for each model the rows of its heaviest window."""
    working = [option for option in advice.options if option.costs]
    table = Table("ranks of a gang", *(str(option.ranks) for option in working), box=None)
    for costs in zip(*(option.costs for option in working), strict=True):
        table.add_row(f"[bold]{escape(costs[0].model)} at {costs[0].width}x{costs[0].height}[/]")
        for name, value in GANG_ROWS.items():
            table.add_row(name, *map(value, costs))
    if any(option.slowest is not None for option in working):
        table.add_row("[bold]the whole manifest[/]")
        for name, bound in (("at least", "fastest"), ("at most", "slowest")):
            seconds = (getattr(option, bound) for option in working)
            table.add_row(f"  {name}", *("" if each is None else duration(each) for each in seconds))
    out.print()
    out.print(table)
    for option in advice.options:
        if option.problem:
            out.print(f"no gangs of {option.ranks}: {option.problem}", markup=False)
    print_recommended(advice)


def print_recommended(advice: "Advice") -> None:
    choice = f"--gang {advice.recommended}" if advice.recommended else "none"
    out.print(f"recommended: {choice}: {advice.reason}\n", markup=False)


def between(low: float, high: float, text: Callable[[float], str]) -> str:
    return text(high) if text(low) == text(high) else f"{text(low)} to {text(high)}"


def print_estimate(estimate: "Estimate") -> None:
    hours = between(*estimate.gpu_hours, lambda hours: f"{hours:,.3g}")
    took = between(estimate.fastest, estimate.slowest, duration)
    out.print(f"about {took} on {estimate.gpus} GPUs (or ranks without), {hours} GPU hours", markup=False)
    if estimate.deadline is not None:
        by = time.strftime("%Y-%m-%d %H:%M", time.localtime(estimate.deadline))
        out.print(f"done by {by} if started now: {estimate.in_time}", markup=False)
