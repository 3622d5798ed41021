"""What a gang of some size makes of a model's window, step by step."""

from dataclasses import dataclass

from flowcache.families.memory import Memory
from flowcache.planner.price import Price
from flowcache.planner.throughput import Throughput


@dataclass(frozen=True)
class GangCost:
    """Of a gang of `ranks` = heads x history, for one model and size; of its busiest rank.

    forward_bytes: sent in a forward of one chunk for one guidance branch. A step is one of one chunk, all guidance
    branches, on average over a window in which nothing is reused. compute: seconds of it; exchange: those in which
    the rank waits for tokens or weights. efficiency: the share of all ranks' time in which they do what one rank would.
    """

    model: str
    width: int
    height: int
    ranks: int
    heads: int
    history: int
    forward_bytes: int
    step_bytes: float
    memory: Memory
    compute: float
    exchange: float
    efficiency: float


def gang_cost(price: Price, alone: Price, throughput: Throughput) -> GangCost:
    """alone: the price of the same window on one rank."""
    work, per_flop = price.rank_most, throughput.per_flop
    took = work.seconds(per_flop, throughput.link)
    return GangCost(
        model=price.model,
        width=price.width,
        height=price.height,
        ranks=price.ranks,
        heads=price.heads,
        history=price.ranks // price.heads,
        forward_bytes=price.forward_bytes,
        step_bytes=(work.sent + work.weights) / price.steps,
        memory=price.memory,
        compute=work.flops * per_flop / price.steps,
        exchange=(took - work.flops * per_flop) / price.steps,
        efficiency=alone.rank_most.flops * per_flop / (price.ranks * took),
    )
