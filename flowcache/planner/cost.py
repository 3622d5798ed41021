"""What requests will take, counted without weights: chunk forwards, FLOPs, K/V memory."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from flowcache.cache.policy import Policy
from flowcache.families.known import family
from flowcache.planner.price import Window, Work
from flowcache.planner.workload import Case, Workload
from flowcache.records import ModelSpec


@dataclass(frozen=True)
class Cost:
    """Of all requests together.

    without_reuse: if every one had that policy and computed every step. most, least: with their own policies,
    where every step that may be reused is computed, and where it is reused. sampling: segments by how their steps are
    taken ("UniPC, official").
    """

    videos: int
    segments: int
    chunks: int
    frames: int
    without_reuse: dict[str, Work]
    most: Work
    least: Work
    sampling: dict[str, int] = field(default_factory=dict)


def cost(work: Workload) -> Cost:
    costs, times = work.costs, Counter(number for chain in work.chains for number in chain)

    def total(count_of: Callable[[Case], Work]) -> Work:
        return sum((count_of(work.cases[number]) * count for number, count in times.items()), Work())

    sampling = Counter[str]()
    for number, count in times.items():
        sampling[work.price(work.cases[number]).told] += count
    others = {case.window: compared(case.window, costs.specs[case.window.model]) for case in work.cases}
    return Cost(
        videos=len(work.requests),
        segments=times.total(),
        chunks=sum(work.cases[number].chunks * count for number, count in times.items()),
        frames=sum(request.frames for request in work.requests),
        without_reuse={
            name: total(lambda case, name=name: costs.price(*others[case.window][name]).most)
            for name in common(others.values())
        },
        most=total(lambda case: work.price(case).most),
        least=total(lambda case: work.price(case).least),
        sampling={told: count for told, count in sampling.items() if told},
    )


def compared(window: Window, spec: ModelSpec) -> dict[str, tuple[Window, Policy]]:
    """The windows and the policies that `Cost.without_reuse` counts, by name."""
    pairs = family(spec.family).compared(window.settings)
    return {name: (replace(window, settings=settings), policy) for name, (settings, policy) in pairs.items()}


def common(mappings: Collection[Mapping[str, object]]) -> list[str]:
    """Keys of all, in the order of the first."""
    return [key for key in next(iter(mappings), {}) if all(key in each for each in mappings)]
