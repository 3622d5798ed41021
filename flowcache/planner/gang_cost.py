"""What the ranks of a gang do, send and hold to denoise one window: by arithmetic."""

from dataclasses import dataclass, replace

from flowcache.cache.reuse import Policy
from flowcache.families.base import Config
from flowcache.families.known import family_of
from flowcache.families.memory import Memory, rank_memory, reuse_bytes, weight_bytes
from flowcache.parallel.mesh import head_groups, runs_of, shares
from flowcache.planner.communication import Shape, block_bytes, block_collectives, output_bytes, sent_bytes
from flowcache.planner.cost import ELEMENT, Window, shared_flops, whole_flops
from flowcache.planner.hardware import Link
from flowcache.records import ModelSpec
from flowcache.sampling.dry_run import WindowWork


@dataclass(frozen=True)
class RankWork:
    """Of the busiest rank. sent: bytes of tokens that leave it; collectives: how often it exchanges such with others;
    weights: bytes that leave it of sharded weights.
    """

    flops: float
    sent: float
    collectives: float
    weights: float = 0.0

    def seconds(self, per_flop: float, link: Link) -> float:
        """A block needs what it exchanges, while its weights come as the one before it computes (FSDP2)."""
        return max(self.flops * per_flop, self.weights / link.speed) + link.seconds(self.sent, self.collectives)

    def toward(self, other: "RankWork", share: float) -> "RankWork":
        """What lies between this load (0) and another one (1)."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return RankWork(*(own + share * (theirs - own) for own, theirs in pairs))


def load(config: Config, done: WindowWork, ranks: int, item: int = ELEMENT, sharded: bool = False) -> RankWork:
    """Of all forwards of a window; sharded: the weights are.

    Left out: what decisions, their comparison and compression exchange.
    """
    shape = shape_of(config, done.tokens, item)
    largest = max(shares(done.tokens, ranks)) / done.tokens
    blocks = max(block_bytes(shape, ranks, rank) for rank in range(ranks))
    return RankWork(
        flops=shared_flops(config, done) * largest + whole_flops(config, done),
        sent=done.forwards * blocks + done.outputs * output_bytes(shape, ranks),
        collectives=done.forwards * block_collectives(shape, ranks) + done.outputs * (ranks > 1),
        weights=done.forwards * weight_bytes(config, ranks).sent if sharded else 0,
    )


def shape_of(config: Config, tokens: int, item: int) -> Shape:
    return Shape(tokens, config.layers, config.heads, config.kv_heads, config.head_dim, item)


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


def gang_cost(
    spec: ModelSpec,
    config: Config,
    policy: Policy,
    window: Window,
    done: WindowWork,
    ranks: int,
    per_flop: float,
    link: Link,
    item: int = ELEMENT,
    sharded: bool = False,
) -> GangCost:
    """done: the dry run of `window` under `at_most(policy)`. per_flop: seconds; item: bytes of a number."""
    width, height = (length * spec.space_stride for length in window.shape[:0:-1])
    shape, ways = shape_of(config, done.tokens, item), head_groups(ranks, config.kv_heads)
    alone, shared = load(config, done, 1, item), load(config, done, ranks, item, sharded)
    took = shared.seconds(per_flop, link)
    return GangCost(
        model=window.model,
        width=width,
        height=height,
        ranks=ranks,
        heads=ways,
        history=ranks // ways,
        forward_bytes=max(sent_bytes(shape, ranks, rank) for rank in range(ranks)),
        step_bytes=(shared.sent + shared.weights) / done.steps,
        memory=rank_memory(
            replace(spec, width=width, height=height), config, ranks,
            kv_bytes(config, done, ranks, item), residual_bytes(config, policy, done, ranks, item), sharded,
        ),
        compute=shared.flops * per_flop / done.steps,
        exchange=(took - shared.flops * per_flop) / done.steps,
        efficiency=alone.flops * per_flop / (ranks * took),
    )  # fmt: skip


def kv_bytes(config: Config, done: WindowWork, ranks: int, item: int = ELEMENT) -> int:
    """Of a rank's K/V storage at the policy's budget: its run of every chunk, of its heads."""
    ways = head_groups(ranks, config.kv_heads)
    run = max(runs_of(done.tokens, ranks, ways))
    return family_of(config).counts.kv_bytes(config, done.kv_branches * done.kv_chunks * run, item) // ways


def residual_bytes(config: Config, policy: Policy, done: WindowWork, ranks: int, item: int = ELEMENT) -> int:
    """What reuse keeps on a rank for the chunks under way."""
    return reuse_bytes(config, done.tokens, ranks, done.kv_branches, done.chunks_in_flight, item) if policy.reuse else 0
