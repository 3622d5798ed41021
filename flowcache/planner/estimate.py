"""How long requests will take on a given cluster, and what that rests on."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Literal

from flowcache.errors import Problem
from flowcache.inputs.options import TOGETHER, Tiling
from flowcache.planner.hardware import EFFICIENCY, TFLOPS, Node
from flowcache.planner.price import CostModel
from flowcache.planner.throughput import Throughput, assumed, measured
from flowcache.planner.workload import Workload
from flowcache.records import Precision
from flowcache.storage.objects.store import Store

Verdict = Literal["yes", "no", "perhaps"]


@dataclass(frozen=True)
class Cluster:
    """What is to render. gpus: ranks in all; None: one gang; gang: ranks that render one video together; sharded: each
    of which holds a part of the weights; precision: in what they are held; tiling: of the VAE; node: what its machines
    are; deadline: unix seconds.

    How fast: as an earlier run's output `like` shows (endpoint_url: for it), or `tflops` that each GPU can do at
    most, of which the share `efficiency` is reached.
    """

    gpus: int | None = None
    gang: int = 1
    like: str | None = None
    endpoint_url: str | None = None
    tflops: float | None = None
    efficiency: float = EFFICIENCY
    deadline: float | None = None
    node: Node = Node()
    sharded: bool = False
    precision: Precision = Precision()
    tiling: Tiling = "auto"

    @property
    def ranks(self) -> int:
        return self.gpus or self.gang

    @property
    def timed(self) -> bool:
        """Whether time is asked for."""
        return any((self.gpus, self.like, self.tflops, self.deadline))

    def faults(self) -> list[Problem]:
        found = []
        if self.ranks < self.gang:
            found.append(Problem("--gpus", "", f"got {self.gpus}; accepted: at least {self.gang}, a gang"))
        if self.timed and (self.like is None) == (self.tflops is None):
            given = "both" if self.like else "neither"
            found.append(Problem("--like", "", f"got {given} --like and --tflops; accepted: one of them"))
        if self.sharded and self.precision.weights != "auto":
            found.append(Problem("--weights", "", TOGETHER.format(self.precision.weights)))
        return found

    def throughput(self, costs: CostModel) -> Throughput:
        if self.like is None:
            return assumed(self.tflops or TFLOPS, self.efficiency, self.node.link)
        options = {"endpoint_url": self.endpoint_url} if self.endpoint_url else {}
        return measured(Store(self.like, **options), costs, self.node.link)


@dataclass(frozen=True)
class Estimate:
    """Seconds from the first gang's start to the last commit, if nothing fails.

    fastest, slowest: where every step is reused that may be, and where none is; equal where it is known how much
    is reused. gpu_hours: of all ranks from start to end, alike. rests_on: the assumptions, a sentence each.
    """

    gpus: int
    gang: int  # ranks that render one video together
    gangs: int  # side by side
    fastest: float
    slowest: float
    gpu_hours: tuple[float, float]
    deadline: float | None  # unix seconds
    in_time: Verdict | None  # if it starts now
    rests_on: tuple[str, ...]


def estimate(work: Workload, throughput: Throughput, cluster: Cluster, now: float) -> Estimate:
    """now: unix seconds."""
    gang, gangs = cluster.gang, cluster.ranks // cluster.gang
    bounds = spans(work, throughput, gang, gangs)
    known = all(case.kind in throughput.reused for case in work.cases)
    side = f"{gangs} gang{'s' * (gangs > 1)} of {gang}"
    notes = [f"{side}, longest video first; no failures, no waiting for the cluster"]
    if bounds[0] < bounds[1]:
        why = (
            "some rows differ from that run in model, policy or steps"
            if throughput.reused
            else "that depends on the video"
        )
        notes.append(f"how much is reused is not known ({why}): from all that may be to nothing")
    elif known:
        notes.append("as much is reused as in that run")
    return Estimate(
        gpus=cluster.ranks,
        gang=gang,
        gangs=gangs,
        fastest=bounds[0],
        slowest=bounds[1],
        gpu_hours=(bounds[0] * gangs * gang / 3600, bounds[1] * gangs * gang / 3600),
        deadline=cluster.deadline,
        in_time=None if cluster.deadline is None else verdict(bounds, cluster.deadline - now),
        rests_on=(*throughput.rests_on, *notes),
    )


def spans(work: Workload, throughput: Throughput, gang: int, gangs: int) -> tuple[float, float]:
    """Seconds that so many gangs of `gang` ranks take for all, loading included: at the fastest, at the slowest."""
    seconds = [throughput.seconds(work.price(case, gang), case.kind, case.pixels) for case in work.cases]
    fastest, slowest = (
        throughput.load + makespan([[seconds[number][bound] for number in chain] for chain in work.chains], gangs)
        for bound in (0, 1)
    )
    return fastest, slowest


def verdict(bounds: Sequence[float], left: float) -> Verdict:
    fastest, slowest = bounds
    return "yes" if slowest <= left else "no" if fastest > left else "perhaps"


def makespan(chains: Sequence[Sequence[float]], gangs: int) -> float:
    """When the last of `gangs` is done, if a free one always takes the chain with the most left, as the driver does.

    chains: seconds of segments that follow one another.
    """
    order = count()  # of two equal ones the first
    ready: list[tuple[float, int, list[float]]] = []
    for chain in chains:
        heappush(ready, (-sum(chain), next(order), list(chain)))
    running: list[tuple[float, int, float, list[float]]] = []
    now, free = 0.0, gangs
    while ready or running:
        while ready and free:
            left, number, chain = heappop(ready)
            heappush(running, (now + chain[0], number, left + chain[0], chain[1:]))
            free -= 1
        now, number, left, chain = heappop(running)
        free += 1
        if chain:
            heappush(ready, (left, number, chain))
    return now
