"""Compression over ranks keeps what one rank keeps. Ranks are threads here, so that many shapes can be tried."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flowcache.cache.kv_cache import Unsharded
from flowcache.cache.kv_select import Compression, Sink, latest
from flowcache.models.log_sum_exp import kernel, plain
from flowcache.parallel.kv_sharding import TokenSharded
from flowcache.parallel.mesh import GangMesh, Mesh

DIM = 8
SELECTS = {
    "token": Compression(),
    "last queries": Compression(asked=4),
    "by age": Compression(mix=0.5, kernel=3, weighting="exponential"),
    "frame": Compression(by="frame"),
    "chunk": Compression(by="chunk", queries="frame"),
    "sink": Sink(1, 1),
}


def select_of(name: str, frame: int, tokens: int):
    if name == "latest":
        return latest
    chosen = SELECTS[name]
    return (chosen.grouped(frame, tokens) if isinstance(chosen, Compression) else chosen).select


@dataclass
class Board:
    """What the threads of a mesh show one another."""

    barrier: Barrier
    shown: list[list[Tensor]]


@dataclass(frozen=True)
class Threads(Mesh):
    """A mesh of threads, which counts the bytes that it sends to others."""

    place: int
    board: Board
    sent: list[int] = field(default_factory=list)

    @property
    def rank(self):
        return self.place

    @property
    def size(self):
        return len(self.board.shown)

    def all_to_all(self, parts, sizes):
        self.board.shown[self.place] = list(parts)
        self.sent.append(sum(part.nbytes for rank, part in enumerate(parts) if rank != self.place))
        self.board.barrier.wait(20)
        received = [shown[self.place] for shown in self.board.shown]
        self.board.barrier.wait(20)
        assert [len(part) for part in received] == list(sizes)
        return received

    def all_gather(self, part, dim, sizes):
        first = part.movedim(dim, 0)
        row = first.shape[1:]
        received = self.all_to_all([first.flatten()] * self.size, [size * row.numel() for size in sizes])
        return torch.cat([rows.view(-1, *row) for rows in received]).movedim(0, dim)


def on_all_ranks(call, ranks: int, ways: int) -> tuple[list, list[int]]:
    """call(history, place) on every rank of one history group of a gang, and the bytes that each of them sent."""
    size = ranks // ways
    board = Board(Barrier(size), [[]] * size)
    meshes = [Threads(None, place, board) for place in range(size)]
    everyone, heads = (Threads(None, 0, Board(Barrier(1), [[]] * count)) for count in (ranks, ways))
    histories = [TokenSharded(GangMesh(everyone, heads, mesh), torch.device("cpu")) for mesh in meshes]
    with ThreadPoolExecutor(size) as pool:
        results = list(pool.map(call, histories, range(size)))
    return results, [sum(mesh.sent) for mesh in meshes]


def keep_together(select, q: Tensor, k: Tensor, v: Tensor, kept: int, tokens: int, group: tuple[int, int]):
    """[keys, values] that all ranks of a history group keep, put together, and the bytes that each of them sent."""

    def rank(history: TokenSharded, place: int) -> list[Tensor]:
        runs = history.runs(tokens)
        own = [x.unflatten(0, (-1, tokens)).split(runs, dim=1)[place].flatten(0, 1) for x in (k, v)]
        mine = history.keep(select, q.split(runs)[place], *own, kept // tokens * runs[place], tokens)
        return [x.unflatten(0, (-1, runs[place])) for x in mine]

    parts, sent = on_all_ranks(rank, *group)
    return [torch.cat(of, dim=1).flatten(0, 1) for of in zip(*parts, strict=True)], sent


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**20),
    st.sampled_from([(2, 1), (3, 1), (4, 2), (4, 1), (6, 2), (6, 1)]),
    st.integers(3, 6),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from([*SELECTS, "latest"]),
    st.sampled_from([(2, 2), (4, 2)]),
)
def test_ranks_keep_what_one_keeps(seed, group, frame, kept, new, name, heads):
    """Uneven runs too: a chunk has two frames of 3 to 6 tokens."""
    torch.manual_seed(seed)
    tokens = 2 * frame
    q = torch.randn(tokens, heads[0], DIM)
    k, v = torch.randn(2, (kept + new) * tokens, heads[1], DIM)
    select = select_of(name, frame, tokens)
    expected = Unsharded().keep(select, q, k, v, kept * tokens, tokens)
    found, _ = keep_together(select, q, k, v, kept * tokens, tokens, group)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@pytest.mark.parametrize("tokens", [3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("form", [kernel, plain])
def test_attention_is_that_of_one_place(form, tokens, dtype, monkeypatch):
    """Down to one token a rank, whatever layout a kernel returns; each rank has its run of two chunks."""
    monkeypatch.setattr("flowcache.parallel.partial.kernel", form)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, n * tokens, heads, DIM, dtype=dtype) for n, heads in ((1, 4), (2, 2), (2, 2)))

    def rank(history: TokenSharded, place: int) -> Tensor:
        runs = history.runs(tokens)
        own = [x.unflatten(1, (-1, tokens)).split(runs, dim=2)[place].flatten(1, 2) for x in (k, v)]
        return history.attention(q.split(runs, dim=1)[place], *own, tokens)

    parts, _ = on_all_ranks(rank, 3, 1)
    expected, tolerance = Unsharded().attention(q, k, v, tokens), 0.01 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("name", "asked", "moved"), [("latest", 0, 0), ("sink", 0, 0), ("chunk", 48, 0), ("token", 96, 2 / 3)]
)
def test_scores_are_sent_and_rows_that_change_ranks(name, asked, moved):
    """The formula of docs/gangs.md, of all ranks together. Whole chunks stay where they are."""
    torch.manual_seed(0)
    tokens, kept, chunks, heads, ranks = 96, 2, 4, 4, 3
    q = torch.randn(tokens, heads, DIM)
    k, v = torch.randn(2, chunks * tokens, heads, DIM)
    _, sent = keep_together(select_of(name, tokens // 2, tokens), q, k, v, kept * tokens, tokens, (ranks, 1))
    queries = asked * heads * (DIM + ranks)
    scores = heads * (2 * chunks * tokens + 2 * ranks * DIM) if asked else 0
    rows = kept * tokens * heads * 2 * DIM
    assert sum(sent) / 4 == pytest.approx((ranks - 1) * (queries + scores) + moved * rows, abs=0.05 * moved * rows)
