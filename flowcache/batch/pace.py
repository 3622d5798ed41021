"""How fast ranks work: by a figure for the hardware, or as an earlier run shows."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flowcache.batch.cost import Window, Work, counter, window
from flowcache.batch.plan import plan
from flowcache.cache.reuse import Policy, resolve_policy
from flowcache.errors import InputError, Problem, masked
from flowcache.records import ModelSpec, RenderRequest
from flowcache.sampling.dry_run import at_least, at_most
from flowcache.storage.commits import read_commits
from flowcache.storage.documents import SegmentMarker
from flowcache.storage.objects import Store
from flowcache.storage.runs import read_run

Kind = tuple[str, str, int]


@dataclass(frozen=True)
class Pace:
    """per_flop: seconds that one rank takes for a FLOP of denoising, ranks sharing it evenly; per_pixel: seconds a
    gang takes beside, for a pixel of output; load: seconds until a gang has its model.

    reused: by kind of request, the share of the FLOPs that reuse may save which it did save, 0..1.
    rests_on: where this comes from, a sentence each.
    """

    per_flop: float
    per_pixel: float
    load: float
    rests_on: tuple[str, ...]
    reused: Mapping[Kind, float] = field(default_factory=dict)

    def seconds(self, flops: float, pixels: int, gang: int) -> float:
        """Of one segment on a gang of so many ranks."""
        return flops * self.per_flop / gang + pixels * self.per_pixel


def kind(request: RenderRequest) -> Kind:
    """Requests of one kind are taken to reuse alike."""
    return request.model, json.dumps(request.policy, sort_keys=True), request.steps


def assumed(tflops: float, efficiency: float) -> Pace:
    """tflops: that one GPU can do at most (dense, bf16); efficiency: what is reached of it, 0..1."""
    notes = (
        f"{tflops:g} TFLOP/s a GPU, of which {efficiency:.0%} is reached: assumed, not measured",
        "denoising alone: no loading, decoding, encoding or upload",
    )
    return Pace(1 / (tflops * 1e12 * efficiency), 0.0, 0.0, notes)


@dataclass(frozen=True)
class Measured:
    """One committed segment. seconds: of denoising, times ranks; beside: wall time without it and without loading."""

    kind: Kind
    flops: float
    seconds: float
    beside: float
    pixels: int
    spared: float  # FLOPs that reuse saved
    spareable: float  # that it may have saved


def measured(store: Store, specs: Mapping[str, ModelSpec]) -> Pace:
    """As the run in `store` shows. specs: model name -> spec, of the models that are to be rendered.

    InputError where the run rendered nothing with any of them.
    """
    run, commits = read_run(store), read_commits(store)
    requests = [RenderRequest.from_dict(row) for row in run.requests if row["model"] in specs]
    requests = [request for request in requests if commits.all(request.id)]
    if not requests:
        accepted = f"an output with finished segments of {', '.join(sorted(specs))}"
        models = ", ".join(sorted(run.models))
        raise InputError([Problem("--like", "", f"{masked(store.url)} holds none ({models}); accepted: {accepted}")])
    counted = counter(specs)
    markers = [marker for request in requests for marker in commits.all(request.id)]
    found = [one for each in requests for one in segments(each, commits.all(each.id), specs[each.model], counted)]
    ranks = sorted({marker.world_size for marker in markers})
    shapes = sorted({f"{request.model} at {request.width}x{request.height}" for request in requests})
    notes = (
        f"measured in {masked(store.url)}: {len(found)} segments of {', '.join(shapes)}, "
        f"on gangs of {', '.join(map(str, ranks))}, hosts {', '.join(hosts(markers))}",
        "denoising goes with the FLOPs and is shared evenly by a gang's ranks; all else goes with the pixels of output",
    )
    return Pace(
        per_flop=sum(one.seconds for one in found) / sum(one.flops for one in found),
        per_pixel=sum(one.beside for one in found) / sum(one.pixels for one in found),
        load=max(marker.seconds.get("load", 0.0) for marker in markers),
        rests_on=notes,
        reused=shares(found),
    )


def segments(
    request: RenderRequest, markers: Sequence[SegmentMarker], spec: ModelSpec, counted: Callable[[Window, Policy], Work]
) -> Iterator[Measured]:
    """The committed segments of one video; counted: as `cost.counter` gives it."""
    policy, planned = resolve_policy(request.policy, spec), plan(request, spec)
    for marker in markers:
        shape = window(request, planned[marker.segment], spec)
        yield segment(request, marker, counted(shape, at_most(policy)), counted(shape, at_least(policy)))


def segment(request: RenderRequest, marker: SegmentMarker, most: Work, least: Work) -> Measured:
    """most, least: its work where nothing is reused, and everything that may be."""
    reusable = most.forwards - least.forwards
    reused = sum(chunk.steps_reused for chunk in marker.chunks) / reusable if reusable else 0.0
    denoising = sum(chunk.denoise_seconds for chunk in marker.chunks)
    beside = marker.finished - marker.started - marker.seconds.get("load", 0.0) - denoising
    spareable = most.flops - least.flops
    return Measured(
        kind=kind(request),
        flops=most.flops - reused * spareable,
        seconds=denoising * marker.world_size,
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
