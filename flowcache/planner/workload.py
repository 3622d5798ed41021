"""All segments of a manifest, those that are alike counted once, and how long gangs need for them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flowcache.cache.reuse import Policy
from flowcache.families.base import Config
from flowcache.families.settings import resolve_policy
from flowcache.inputs.segments import plan
from flowcache.planner.cost import Window, walker, window
from flowcache.planner.gang_cost import load
from flowcache.planner.throughput import Kind, Throughput, kind
from flowcache.records import ModelSpec, RenderRequest
from flowcache.sampling.dry_run import WindowWork, at_least, at_most


@dataclass(frozen=True)
class Case:
    """What the time of a segment depends on. pixels: of its output."""

    window: Window
    policy: Policy
    pixels: int
    kind: Kind


@dataclass(frozen=True)
class Workload:
    """requests, and the chains of their segments, each the numbers of its cases; walked: as `cost.walker` gives it."""

    requests: Sequence[RenderRequest]
    specs: Mapping[str, ModelSpec]
    cases: Sequence[Case]
    chains: Sequence[Sequence[int]]
    walked: Callable[[Window, Policy], tuple[Config, WindowWork]]

    def seconds(
        self, throughput: Throughput, gang: int, sharded: bool = False
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Of each segment on a gang of so many ranks, a list for each chain: at the fastest, and at the slowest."""
        prices = [self._price(case, throughput, gang, sharded) for case in self.cases]
        fastest, slowest = ([[price[bound] for price in map(prices.__getitem__, chain)] for chain in self.chains]
                            for bound in (0, 1))  # fmt: skip
        return fastest, slowest

    def _price(self, case: Case, throughput: Throughput, gang: int, sharded: bool) -> tuple[float, float]:
        """With all reused that may be, and nothing; alike where it is known how much is."""
        most, least = (
            load(*self.walked(case.window, bound), gang, sharded=sharded)
            for bound in (at_most(case.policy), at_least(case.policy))
        )
        known = throughput.reused.get(case.kind)
        shares = (1.0, 0.0) if known is None else (known, known)
        fastest, slowest = (throughput.seconds(most.toward(least, share), case.pixels) for share in shares)
        return fastest, slowest


def workload(requests: Sequence[RenderRequest], specs: Mapping[str, ModelSpec]) -> Workload:
    """specs: model name -> spec. InputError where a model's transformer config can't be read."""
    numbers: dict[Case, int] = {}
    chains: list[list[int]] = []
    for request in requests:
        spec = specs[request.model]
        policy, alike = resolve_policy(request.policy, spec), kind(request)
        for segment in plan(request, spec):
            pixels = segment.frames * request.width * request.height
            case = Case(window(request, segment, spec), policy, pixels, alike)
            if segment.after is None:
                chains.append([])
            chains[-1].append(numbers.setdefault(case, len(numbers)))
    return Workload(requests, specs, list(numbers), chains, walker(specs))
