"""How much the ranks of a gang say to one another: the formula of docs/gangs.md."""

from dataclasses import dataclass

from flowcache.parallel.mesh import head_groups, runs_of, shares


@dataclass(frozen=True)
class Shape:
    """What a forward of one chunk is made of; `item`: bytes of one number."""

    tokens: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    item: int


def sent_bytes(shape: Shape, ranks: int, rank: int = 0) -> int:
    """Bytes that leave `rank` while a gang of `ranks` forwards one chunk for one guidance branch.

    What a collective sends to several ranks counts once for each of them.
    """
    return block_bytes(shape, ranks, rank) + output_bytes(shape, ranks)


def block_bytes(shape: Shape, ranks: int, rank: int = 0) -> int:
    """Those of all layers."""
    ways = head_groups(ranks, shape.kv_heads)
    runs = runs_of(shape.tokens, ranks, ways)
    own, run = shares(shape.tokens, ranks)[rank], runs[rank // ways]
    inside = shape.heads // ways * shape.head_dim  # numbers of a token's queries, past Ulysses
    into = own * (shape.heads + 2 * shape.kv_heads) // ways * shape.head_dim * (ways - 1) * shape.item
    back = (run - own) * inside * shape.item
    queries = (len(runs) - 1) * max(runs) * inside * shape.item
    partial = (shape.tokens - run) * (inside * shape.item + shape.heads // ways * 4) if len(runs) > 1 else 0
    return shape.layers * (into + back + queries + partial)


def output_bytes(shape: Shape, ranks: int) -> int:
    """Those of the hidden states, for the projection after the last layer."""
    return (ranks - 1) * max(shares(shape.tokens, ranks)) * shape.heads * shape.head_dim * shape.item


def block_collectives(shape: Shape, ranks: int) -> int:
    """How often all layers of one forward wait for other ranks: twice for heads, twice for K/V split by tokens."""
    ways = head_groups(ranks, shape.kv_heads)
    return shape.layers * 2 * ((ways > 1) + (ranks > ways))
