"""What the ranks of a gang compute, send and hold to denoise one window: by arithmetic, from a dry run."""

import math
from dataclasses import dataclass

from flowcache.cache.policy import Policy
from flowcache.families.base import Config
from flowcache.families.known import family_of
from flowcache.families.memory import reuse_bytes, weight_bytes
from flowcache.parallel.mesh import head_groups, runs_of, shares
from flowcache.planner.communication import Shape, block_bytes, block_collectives, output_bytes
from flowcache.planner.hardware import Link
from flowcache.records import Precision
from flowcache.sampling.dry_run import WindowWork

ELEMENT = 2  # bytes of a value in bf16, in which published checkpoints run
PRECISION = {2: Precision(), 4: Precision("fp32")}  # by the bytes of a number


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
        """What lies between this work (0) and another one (1)."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return RankWork(*(own + share * (theirs - own) for own, theirs in pairs))


def rank_work(config: Config, done: WindowWork, ranks: int, item: int = ELEMENT, sharded: bool = False) -> RankWork:
    """Of all forwards of a window; item: bytes of a number; sharded: the weights are.

    Left out: what decisions, their comparison and compression exchange.
    """
    shape = shape_of(config, done.tokens, item)
    largest = max(shares(done.tokens, ranks)) / done.tokens
    blocks = max(block_bytes(shape, ranks, rank) for rank in range(ranks))
    return RankWork(
        flops=shared_flops(config, done) * largest + whole_flops(config, done),
        sent=done.forwards * blocks + done.outputs * output_bytes(shape, ranks),
        collectives=done.forwards * block_collectives(shape, ranks) + done.outputs * (ranks > 1),
        weights=done.forwards * weight_bytes(config, ranks, PRECISION[item]).sent if sharded else 0,
    )


def shape_of(config: Config, tokens: int, item: int = ELEMENT) -> Shape:
    return Shape(tokens, config.layers, config.heads, config.kv_heads, config.head_dim, item)


def flops(config: Config, done: WindowWork) -> int:
    """Of all ranks together, without what is negligible: timestep embeddings, norms, the solver."""
    return shared_flops(config, done) + whole_flops(config, done)


def shared_flops(config: Config, done: WindowWork) -> int:
    """What the ranks of a gang share: all layers."""
    count = family_of(config).counts
    blocks = count.block_flops(config, done.tokens, 0)
    attention = count.block_flops(config, done.tokens, done.seen) - blocks
    return done.forwards * blocks + attention


def whole_flops(config: Config, done: WindowWork) -> int:
    """What each rank does: what lies before and after the layers."""
    count = family_of(config).counts
    embedding = done.forwards * (count.embed_flops(config, done.tokens) // done.kv_branches)
    return (
        embedding + done.outputs * count.head_flops(config, done.tokens) + done.kv_branches * count.text_flops(config)
    )


def kv_bytes(config: Config, done: WindowWork, ranks: int, item: int = ELEMENT) -> int:
    """Of a rank's K/V storage at the policy's budget: its run of every chunk, of its heads."""
    ways = head_groups(ranks, config.kv_heads)
    run = max(runs_of(done.tokens, ranks, ways))
    return family_of(config).counts.kv_bytes(config, done.kv_branches * done.kv_chunks * run, item) // ways


def residual_bytes(
    config: Config, policy: Policy, done: WindowWork, ranks: int, item: int = ELEMENT, channels: int = 0
) -> int:
    """What reuse keeps on a rank for the chunks under way; channels: of latents."""
    latents = 4 * done.tokens * math.prod(config.patch) * channels
    if policy.steps:
        return done.chunks_in_flight * policy.steps.held(latents)
    if not policy.reuse:
        return 0
    tokens = done.kv_branches * math.ceil(done.tokens / ranks) * config.dim * item
    own = policy.step_cache().held(latents, tokens)
    if own is not None:
        return done.chunks_in_flight * own
    return reuse_bytes(config, done.tokens, ranks, done.kv_branches, done.chunks_in_flight, item)


def query_bytes(config: Config, policy: Policy, done: WindowWork, ranks: int, item: int = ELEMENT) -> int:
    """Of the last forward's queries, kept on a rank where those choose tokens later."""
    own = math.ceil(done.tokens * config.heads / ranks)
    return config.layers * own * config.head_dim * item if policy.asks_late else 0
