"""All segments of a manifest, those that are alike counted once."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowcache.cache.policy import Policy
from flowcache.families.settings import resolve_policy
from flowcache.inputs.segments import plan
from flowcache.planner.price import CostModel, Price, Window, window
from flowcache.planner.throughput import Kind, kind
from flowcache.records import RenderRequest


@dataclass(frozen=True)
class Case:
    """What the price and the time of a segment depend on. chunks, pixels: of its output."""

    window: Window
    policy: Policy
    chunks: int
    pixels: int
    kind: Kind


@dataclass(frozen=True)
class Workload:
    """requests, and the chains of their segments, each the numbers of its cases."""

    requests: Sequence[RenderRequest]
    costs: CostModel
    cases: Sequence[Case]
    chains: Sequence[Sequence[int]]

    def price(self, case: Case, ranks: int = 1) -> Price:
        return self.costs.price(case.window, case.policy, ranks)


def workload(requests: Sequence[RenderRequest], costs: CostModel) -> Workload:
    """costs: knows the models of all requests."""
    numbers: dict[Case, int] = {}
    chains: list[list[int]] = []
    for request in requests:
        spec = costs.specs[request.model]
        policy, alike = resolve_policy(request.policy, spec), kind(request)
        for segment in plan(request, spec):
            pixels = segment.frames * request.width * request.height
            case = Case(window(request, segment, spec), policy, segment.chunks, pixels, alike)
            if segment.after is None:
                chains.append([])
            chains[-1].append(numbers.setdefault(case, len(numbers)))
    return Workload(requests, costs, list(numbers), chains)
