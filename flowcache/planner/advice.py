"""Which gang size suits a manifest and a cluster: what each costs, and which one to take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flowcache.errors import Problem
from flowcache.families.memory import GIB, codec_bytes
from flowcache.families.vae_tiling import USABLE, tile_for
from flowcache.planner.estimate import Cluster, spans, verdict
from flowcache.planner.gang_cost import GangCost, gang_cost
from flowcache.planner.hardware import Node
from flowcache.planner.throughput import Throughput
from flowcache.planner.workload import Case, Workload
from flowcache.records import ModelSpec, RenderRequest
from flowcache.report.words import duration

SIZES = 1, 2, 4, 8
WORTH = 0.95  # a larger gang has to need so much less of the time


@dataclass(frozen=True)
class GangOption:
    """Gangs of one size. costs: for each model the one of its windows that needs most memory; none where `problem`
    says why such gangs can't work.

    fits: the memory of a GPU. fastest, slowest: seconds for the whole manifest, where the cluster has GPUs for one.
    """

    ranks: int
    costs: tuple[GangCost, ...] = ()
    problem: str | None = None
    fits: bool = False
    fastest: float | None = None
    slowest: float | None = None


@dataclass(frozen=True)
class Timed:
    """Gangs of one size, and the seconds that they take for the whole manifest."""

    ranks: int
    fastest: float
    slowest: float


@dataclass(frozen=True)
class Advice:
    """recommended: ranks of a gang; None: no size that was looked at works. reason, rests_on: sentences."""

    options: tuple[GangOption, ...]
    recommended: int | None
    reason: str
    rests_on: tuple[str, ...]


def advise(work: Workload, throughput: Throughput, cluster: Cluster, now: float) -> Advice:
    """now: unix seconds."""
    sizes, heaviest = sorted({*SIZES, cluster.gang}), heaviest_windows(work, throughput, cluster)
    options = tuple(option(work, throughput, cluster, heaviest, ranks) for ranks in sizes)
    recommended, reason = choose(options, work, cluster, now)
    room = f"{USABLE:.0%} of a GPU's {cluster.node.memory / GIB:.1f} GiB (--gpu-memory) can be filled"
    held = work.costs.precision
    eight = "" if held.weights == "auto" else f", those of the blocks in 8 bits (--weights {held.weights})"
    number = "float32" if held.element == 4 else "bfloat16"
    tiles = {
        "on": "in tiles",
        "off": "whole",
        "auto": "in tiles where whole ones would not fit the GPU of a gang of one",
    }
    rests_on = (
        *throughput.rests_on,
        f"{room}; K/V and weights in {number}{eight}, activations and VAE estimated",
        f"frames are decoded {tiles[cluster.tiling]}",
    )
    if work.costs.sharded:
        rests_on += ("weights are sharded: each block's are gathered while the one before it computes",)
    return Advice(options, recommended, reason, rests_on)


def check_gang(requests: Sequence[RenderRequest], specs: Mapping[str, ModelSpec], gang: int) -> list[Problem]:
    """Gangs of more ranks than a chunk has tokens are refused before anything loads."""
    problems = {}
    for request in requests:
        width, height = request.width, request.height
        tokens = specs[request.model].asked(vars(request)).chunk_tokens(width, height)
        size = f"{request.model} at {width}x{height}"
        if gang > tokens and size not in problems:
            problems[size] = Problem("--gang", "", f"got {gang}; accepted for {size}: 1 to {tokens}")
    return list(problems.values())


def heaviest_windows(work: Workload, throughput: Throughput, cluster: Cluster) -> list[Case]:
    """Of each model the case whose window needs most memory on one rank."""
    alike = {(case.window, case.policy): case for case in work.cases}
    found: dict[str, tuple[int, Case]] = {}
    for case in alike.values():
        need = cost_of(work, case, 1, throughput, cluster).memory.total
        if need > found.get(case.window.model, (0,))[0]:
            found[case.window.model] = need, case
    return [case for _, case in found.values()]


def cost_of(work: Workload, case: Case, ranks: int, throughput: Throughput, cluster: Cluster) -> GangCost:
    cost = gang_cost(work.price(case, ranks), work.price(case), throughput)
    spec, precision = work.costs.specs[cost.model], work.costs.precision
    spec = replace(spec, width=cost.width, height=cost.height, fps=case.window.settings.fps)
    tile = tile_for(cluster.tiling, spec, work.costs.configs[cost.model], precision, cluster.node.memory)
    codec = codec_bytes(spec, tile, precision.vae_dtype)
    return replace(cost, memory=replace(cost.memory, codec=codec))


def option(
    work: Workload, throughput: Throughput, cluster: Cluster, heaviest: Sequence[Case], ranks: int
) -> GangOption:
    if problem := problem_of(work, cluster.node, ranks):
        return GangOption(ranks, problem=problem)
    costs = tuple(cost_of(work, case, ranks, throughput, cluster) for case in heaviest)
    fits = all(cost.memory.total <= USABLE * cluster.node.memory for cost in costs)
    timed = cluster.timed and ranks <= cluster.ranks
    fastest, slowest = spans(work, throughput, ranks, cluster.ranks // ranks) if timed else (None, None)
    return GangOption(ranks, costs, None, fits, fastest, slowest)


def problem_of(work: Workload, node: Node, ranks: int) -> str | None:
    """Why gangs of that size can't work."""
    if refused := check_gang(work.requests, work.costs.specs, ranks):
        return "; ".join(problem.message for problem in refused)
    if ranks > node.gpus:
        return f"a gang lies on one node, and that has {node.gpus} GPUs (--node-gpus); accepted: 1 to {node.gpus}"
    return None


def choose(options: Sequence[GangOption], work: Workload, cluster: Cluster, now: float) -> tuple[int | None, str]:
    """The smallest size that fits, or a larger one where that is done clearly sooner; and why."""
    working = [each for each in options if not each.problem]
    fitting = [each for each in working if each.fits]
    if not fitting:
        need = min(max(cost.memory.total for cost in each.costs) for each in working) / GIB
        return None, (
            f"none of these gangs fits: the least that a GPU would have to hold is {need:.1f} GiB. A budget for K/V "
            "(policy, `clean`), --shard-weights, smaller frames or larger GPUs help"
        )
    timed = [
        Timed(each.ranks, each.fastest, each.slowest)
        for each in fitting
        if each.fastest is not None and each.slowest is not None
    ]
    if not timed and cluster.gpus:
        return (
            None,
            f"with less than {fitting[0].ranks} ranks none fits the GPUs, and there are {cluster.gpus} (--gpus)",
        )
    if not timed:
        return fitting[0].ranks, "the smallest that fits the GPUs: the fewer ranks, the less is lost between them"
    soonest = min(each.slowest for each in timed)
    best = next(each for each in timed if WORTH * each.slowest <= soonest)
    return best.ranks, because(best, timed[0], work, cluster, now)


def because(best: Timed, first: Timed, work: Workload, cluster: Cluster, now: float) -> str:
    """first: the smallest that fits."""
    if best is first:
        reason = f"the smallest that fits the GPUs, done in {duration(best.slowest)}; larger ones gain less than 5 %"
    else:
        gangs, chains = cluster.ranks // first.ranks, len(work.chains)
        idle = f"{chains} of {gangs} gangs have work" if chains < gangs else "most gangs wait for the longest chains"
        reason = (
            f"done in {duration(best.slowest)} instead of {duration(first.slowest)} with {first.ranks}, where {idle}"
        )
    if cluster.deadline is None:
        return reason
    left = cluster.deadline - now
    in_time = {each.ranks: verdict((each.fastest, each.slowest), left) for each in (best, first)}
    return f"{reason}; in time: {', '.join(f'{answer} with {ranks}' for ranks, answer in in_time.items())}"
