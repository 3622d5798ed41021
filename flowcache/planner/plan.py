"""What a manifest will take, all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flowcache.planner.advice import Advice, advise
from flowcache.planner.cost import Cost, cost
from flowcache.planner.estimate import Cluster, Estimate, estimate
from flowcache.planner.price import cost_model
from flowcache.planner.workload import workload
from flowcache.records import ModelSpec, RenderRequest


@dataclass(frozen=True)
class Plan:
    """cost: of all requests together. gangs: what gangs of several sizes cost, and which to take. estimate: of time,
    where that is asked for.
    """

    cost: Cost
    gangs: Advice
    estimate: Estimate | None


def plan(requests: Sequence[RenderRequest], specs: Mapping[str, ModelSpec], cluster: Cluster, now: float) -> Plan:
    """specs: model name -> spec; now: unix seconds.

    InputError where a model's transformer config can't be read, or where the earlier run that the cluster names says
    nothing about its speed.
    """
    costs = cost_model(specs, cluster.sharded, cluster.precision)
    work, throughput = workload(requests, costs), cluster.throughput(costs)
    timed = estimate(work, throughput, cluster, now) if cluster.timed else None
    return Plan(cost(work), advise(work, throughput, cluster, now), timed)
