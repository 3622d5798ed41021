"""What requests will take, counted without weights: chunk forwards, FLOPs, K/V memory."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from flowcache.cache.policy import Policy
from flowcache.planner.price import Window, Work
from flowcache.planner.workload import Case, Workload
from flowcache.records import ModelSpec

# What the policy of a request is compared with, by family. MAGI-1's "dense" is `off` with the whole history seen.
WITHOUT_REUSE = {
    "skyreels": {
        "dense": Policy("dense", attention="full"),
        "off": Policy("off"),
        "paper": Policy("paper", kv_update="stale"),
        "flowcache": Policy("flowcache", kv_update="refresh"),
    },
    "magi": {
        "dense": Policy("dense", kv_update="refresh"),
        "off": Policy("off", kv_update="refresh"),
        "paper": Policy("paper", kv_update="stale", near_clean_guidance=False),
        "flowcache": Policy("flowcache", kv_update="refresh"),
    },
}


@dataclass(frozen=True)
class Cost:
    """Of all requests together.

    without_reuse: if every one had that policy and computed every step. most, least: with their own policies,
    where every step that may be reused is computed, and where it is reused.
    """

    videos: int
    segments: int
    chunks: int
    frames: int
    without_reuse: dict[str, Work]
    most: Work
    least: Work


def cost(work: Workload) -> Cost:
    costs, times = work.costs, Counter(number for chain in work.chains for number in chain)

    def total(count_of: Callable[[Case], Work]) -> Work:
        return sum((count_of(work.cases[number]) * count for number, count in times.items()), Work())

    return Cost(
        videos=len(work.requests),
        segments=times.total(),
        chunks=sum(work.cases[number].chunks * count for number, count in times.items()),
        frames=sum(request.frames for request in work.requests),
        without_reuse={
            name: total(
                lambda case, name=name: costs.price(*compared(case.window, costs.specs[case.window.model], name)).most
            )
            for name in WITHOUT_REUSE["skyreels"]
        },
        most=total(lambda case: work.price(case).most),
        least=total(lambda case: work.price(case).least),
    )


def compared(window: Window, spec: ModelSpec, name: str) -> tuple[Window, Policy]:
    """The window and the policy that `Cost.without_reuse` counts under a name."""
    if name == "dense" and spec.pipeline:
        everything = replace(window.settings, pipeline=replace(spec.pipeline, kv_ranges=()))
        window = replace(window, settings=everything)
    return window, WITHOUT_REUSE[spec.family][name]
