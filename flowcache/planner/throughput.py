"""How fast ranks work: by a figure for the hardware, or as an earlier run shows."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flowcache.errors import InputError, Problem, masked
from flowcache.families.base import Config
from flowcache.families.settings import resolve_policy
from flowcache.inputs.segments import plan
from flowcache.planner.hardware import Link
from flowcache.planner.price import CostModel, Price, window
from flowcache.planner.rank_work import RankWork, rank_work
from flowcache.records import RenderRequest
from flowcache.sampling.dry_run import WindowWork
from flowcache.storage.commits import read_commits
from flowcache.storage.documents import SegmentMarker
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import read_run

Kind = tuple[str, str, int]


@dataclass(frozen=True)
class Throughput:
    """per_flop: seconds that a rank takes for a FLOP of denoising; link: between ranks; per_pixel: seconds a gang
    takes beside, for a pixel of output; load: seconds until a gang has its model.

    reused: by kind of request, the share of the work that reuse may save which it did save, 0..1.
    rests_on: where this comes from, a sentence each.
    """

    per_flop: float
    link: Link
    per_pixel: float = 0.0
    load: float = 0.0
    rests_on: tuple[str, ...] = ()
    reused: Mapping[Kind, float] = field(default_factory=dict)

    def seconds(self, price: Price, kind: Kind, pixels: int) -> tuple[float, float]:
        """Of a segment, with all reused that may be, and nothing; alike where it is known how much is."""
        known = self.reused.get(kind)
        works = (price.rank(share) for share in ((1.0, 0.0) if known is None else (known, known)))
        fastest, slowest = (work.seconds(self.per_flop, self.link) + pixels * self.per_pixel for work in works)
        return fastest, slowest

    def windows(self, config: Config, works: Sequence[tuple[int, WindowWork]], ranks: int = 1) -> float:
        """Of denoising so many windows of which work, one after the other, by one gang."""
        return sum(count * rank_work(config, work, ranks).seconds(self.per_flop, self.link) for count, work in works)


def kind(request: RenderRequest) -> Kind:
    """Requests of one kind are taken to reuse alike."""
    return request.model, json.dumps(request.policy, sort_keys=True), request.steps


def assumed(tflops: float, efficiency: float, link: Link) -> Throughput:
    """tflops: that one GPU can do at most (dense, bf16); efficiency: what is reached of it, 0..1."""
    notes = (
        f"{tflops:g} TFLOP/s a GPU, of which {efficiency:.0%} is reached: assumed, not measured",
        "denoising alone: no loading, decoding, encoding or upload",
        f"{link} between ranks: assumed",
    )
    return Throughput(1 / (tflops * 1e12 * efficiency), link, rests_on=notes)


@dataclass(frozen=True)
class Measured:
    """One committed segment. work: of a rank; seconds: of denoising; beside: wall time without it and loading."""

    kind: Kind
    work: RankWork
    seconds: float
    beside: float
    pixels: int
    spared: float  # FLOPs that reuse saved
    spareable: float  # that it may have saved


def measured(store: Store, costs: CostModel, link: Link) -> Throughput:
    """As the run in `store` shows; costs: knows the models that are to be rendered.

    InputError where the run rendered nothing with any of them, or where its exchanges can't have gone over `link`.
    """
    run, commits = read_run(store), read_commits(store)
    requests = [RenderRequest.from_dict(row) for row in run.requests if row["model"] in costs.specs]
    requests = [request for request in requests if commits.all(request.id)]
    if not requests:
        accepted = f"an output with finished segments of {', '.join(sorted(costs.specs))}"
        models = ", ".join(sorted(run.models))
        raise InputError([Problem("--like", "", f"{masked(store.url)} holds none ({models}); accepted: {accepted}")])
    markers = [marker for request in requests for marker in commits.all(request.id)]
    found = [one for each in requests for one in segments(each, commits.all(each.id), costs)]
    ranks = sorted({marker.world_size for marker in markers})
    shapes = sorted({f"{request.model} at {request.width}x{request.height}" for request in requests})
    notes = (
        f"measured in {masked(store.url)}: {len(found)} segments of {', '.join(shapes)}, "
        f"on gangs of {', '.join(map(str, ranks))}, hosts {', '.join(hosts(markers))}",
        "denoising goes with each rank's FLOPs and with what it sends; all else goes with the pixels of output",
        f"{link} between ranks: assumed",
    )
    return Throughput(
        per_flop=per_flop(found, link),
        link=link,
        per_pixel=sum(one.beside for one in found) / sum(one.pixels for one in found),
        load=max(marker.seconds.get("load", 0.0) for marker in markers),
        rests_on=notes,
        reused=shares(found),
    )


def per_flop(found: Sequence[Measured], link: Link) -> float:
    """Seconds for a FLOP of a rank, once what it exchanged over the link is taken out."""
    seconds = sum(one.seconds for one in found)
    exchange = sum(link.seconds(one.work.sent, one.work.collectives) for one in found)
    if exchange >= seconds:
        slow = f"is too slow: over it the exchanges of --like alone take {exchange:.3g} s, and its denoising took"
        raise InputError([Problem("--link", "", f"{link} {slow} {seconds:.3g} s; accepted: a faster one")])
    return (seconds - exchange) / sum(one.work.flops for one in found)


def segments(request: RenderRequest, markers: Sequence[SegmentMarker], costs: CostModel) -> Iterator[Measured]:
    """The committed segments of one video."""
    spec = costs.specs[request.model]
    policy, planned = resolve_policy(request.policy, spec), plan(request, spec)
    for marker in markers:
        price = costs.price(window(request, planned[marker.segment], spec), policy, marker.world_size)
        yield segment(request, marker, price)


def segment(request: RenderRequest, marker: SegmentMarker, price: Price) -> Measured:
    """price: of its window on the gang that rendered it."""
    reusable = price.most.forwards - price.least.forwards
    reused = sum(chunk.steps_reused for chunk in marker.chunks) / reusable if reusable else 0.0
    denoising = sum(chunk.denoise_seconds for chunk in marker.chunks)
    beside = marker.finished - marker.started - marker.seconds.get("load", 0.0) - denoising
    spareable = price.most.flops - price.least.flops
    return Measured(
        kind=kind(request),
        work=price.rank(reused),
        seconds=denoising,
        beside=max(beside, 0.0),
        pixels=marker.frames * request.width * request.height,
        spared=reused * spareable,
        spareable=spareable,
    )


def shares(found: Sequence[Measured]) -> dict[Kind, float]:
    spared, spareable = defaultdict(float), defaultdict(float)
    for one in found:
        spared[one.kind] += one.spared
        spareable[one.kind] += one.spareable
    return {kind: spared[kind] / spareable[kind] if spareable[kind] else 0.0 for kind in spareable}


def hosts(markers: Sequence[SegmentMarker]) -> list[str]:
    names = sorted({marker.host for marker in markers})
    return names if len(names) <= 3 else [*names[:3], f"and {len(names) - 3} more"]
