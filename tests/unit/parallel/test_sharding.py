"""N ranks give what one gives: real gloo process groups, a tiny model."""

from dataclasses import dataclass, field, replace
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatIncrement, RepeatResidual, RepeatVelocity
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.parallel.apply import shard
from flowcache.parallel.mesh import ALONE, GangMesh, Mesh, arrange, head_groups, shares
from flowcache.planner.communication import Shape, block_collectives, sent_bytes
from flowcache.planner.rank_work import kv_bytes, residual_bytes
from flowcache.sampling.dry_run import at_most, dry_run
from flowcache.sampling.executor import self_only
from flowcache.sampling.loop import Texts, denoise
from flowcache.sampling.window import Window

PIPELINE = Pipeline(window=2, kv_ranges=(), clean_kv_range=-1)
SETTINGS = {
    "skyreels": SamplerSettings(steps=6, shift=3.0, guidance=3.0, ar_step=3, chunk=2, fps=24),
    "magi": MagiSettings(steps=4, lag=2, chunk=2, fps=24, guidance=7.5, pipeline=PIPELINE),
}
REUSE = Reuse(threshold=1.0, warmup_steps=2, coefficients=(1.0, 0.0))
OFTEN = Reuse(threshold=0.5, warmup_steps=1, coefficients=(1.0, 0.0))
INCREMENT = CacheOf(RepeatIncrement)
TOKENS, FRAMES, CHUNKS = (Compression(by=unit) for unit in ("token", "frame", "chunk"))
CASES = [
    ("skyreels", Policy("off")),
    ("skyreels", Policy("dense", attention="full")),
    ("skyreels", Policy("paper", REUSE, kv_update="stale")),
    ("skyreels", Policy("tokens", REUSE, kv_update="stale", clean=1, compression=TOKENS)),
    ("skyreels", Policy("frames", REUSE, kv_update="refresh", clean=1, compression=FRAMES)),
    ("magi", Policy("off", kv_update="refresh")),
    (
        "magi",
        Policy(
            "paper", replace(OFTEN, last_step=False), "stale", clean=1, compression=TOKENS, cache=INCREMENT, cut="after"
        ),
    ),
    ("magi", Policy("mended", OFTEN, kv_update="refresh", clean=1, compression=CHUNKS, cache=CacheOf(RepeatVelocity))),
]


def skyreels() -> SkyReelsTransformer:
    return SkyReelsTransformer(SkyReelsConfig(32, 64, 4, 2, in_channels=4, out_channels=4, text_dim=8, freq_dim=16))


def magi() -> MagiTransformer:
    return MagiTransformer(MagiConfig(64, 128, 8, 4, 16, 2, channels=4, text_dim=8, text_len=3, condition_dim=16))


class Weighed(Window):
    """Notes after each row how many bytes it holds for reuse."""

    def __init__(self, *given):
        super().__init__(*given)
        self.held: list[int] = []

    def run(self, row):
        super().run(row)
        values = [value for cache in self.caches.values() for value in vars(cache).values()]
        kept = [x for value in values for x in (value.values() if isinstance(value, dict) else [value])]
        if (
            self.policy.cache.kind is not RepeatResidual
        ):  # SkyReels-V2's signals are embeddings of timesteps, held anyway
            kept += [state.signal for state in getattr(self.rule, "states", {}).values() if state.signal is not None]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
        self.held.append(sum(storages.values()))


def sample(ranks: GangMesh, family: str, policy: Policy, width: int):
    """Latents, decisions, K/V and residual bytes of three chunks after a given one, the first with a given frame."""
    torch.manual_seed(0)
    model = skyreels() if family == "skyreels" else magi()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    noise, prefix, end = (torch.randn(4, frames, 6, width) for frames in (8, 3, 1))
    condition_noise = torch.randn(20, 4, 2, 6, width)  # for each row
    visits, windows, sharded = [], [], shard(model, ranks)
    given = {"prefix": prefix, "kv_sharding": sharded.kv_sharding() if ranks is not ALONE else None}
    if family == "skyreels":
        given |= {"condition_noise_of": condition_noise.__getitem__, "end": end}
    texts = Texts(torch.randn(1, 3, 8), torch.randn(1, 3, 8))
    with mock.patch("flowcache.sampling.loop.Window", lambda *args: windows.append(Weighed(*args)) or windows[0]):
        chunks = list(denoise(sharded, noise, texts, SETTINGS[family], policy, observe=visits.append, **given))
    decisions = [(v.row, v.chunk, v.branch, v.decision.compute, v.decision.distance, v.seen) for v in visits]
    held = chunks[-1].kv_bytes, max(windows[0].held)
    return torch.cat([chunk.latents for chunk in chunks], dim=1), decisions, held


def predicted(ranks: int, family: str, policy: Policy, width: int) -> tuple[int, int]:
    """K/V and residual bytes of the busiest rank."""
    config = (skyreels() if family == "skyreels" else magi()).config
    done = dry_run(SETTINGS[family], (8, 6, width), config.patch, at_most(policy), given=3)
    return kv_bytes(config, done, ranks, 4), residual_bytes(config, policy, done, ranks, 4)


@dataclass(frozen=True)
class Counting(Mesh):
    """Counts the bytes that it sends to other ranks."""

    sent: list[int] = field(default_factory=list)

    def all_to_all(self, parts, sizes):
        self.sent.append(sum(part.nbytes for rank, part in enumerate(parts) if rank != self.rank))
        return super().all_to_all(parts, sizes)

    def all_gather(self, part, dim, sizes):
        self.sent.append((self.size - 1) * part.nbytes // part.shape[dim] * max(sizes))
        return super().all_gather(part, dim, sizes)


def forward_bytes(ranks: GangMesh, width: int, dtype: torch.dtype) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of one forward of a chunk: what this rank sent, and how often; and what the formulas say."""
    torch.manual_seed(0)
    sent, whole = [], skyreels().to(dtype)
    model = shard(whole, GangMesh(*(Counting(mesh.group, sent) for mesh in (ranks.all, ranks.heads, ranks.history))))
    x, texts = torch.randn(1, 4, 2, 6, width, dtype=dtype), torch.randn(1, 3, 8, dtype=dtype)
    grid, sharding = model.grid(x), model.kv_sharding()
    conditioning, text = model.condition(torch.full((1, 2), 500.0), grid, 24), model.text(texts)
    attend = self_only(sharding, grid.tokens)
    with torch.inference_mode():
        out = model.transform(model.embed(x), conditioning, [text], [model.rope(grid)], attend)
        model.project(out, conditioning, grid)
    shape = Shape(grid.tokens, whole.layers, whole.heads, whole.kv_heads, whole.head_dim, dtype.itemsize)
    size = ranks.all.size
    formulas = sent_bytes(shape, size, ranks.all.rank), block_collectives(shape, size) + 1
    return (sum(sent), len([some for some in sent if some])), formulas


def on_rank(group: dist.ProcessGroup, width: int) -> tuple[list[tuple], list[tuple]]:
    """What this rank gives in every case, and what it sends."""
    ranks = arrange(group, 4)
    outcome = [(latents.numpy(), *more) for latents, *more in (sample(ranks, *case, width) for case in CASES)]
    return outcome, [forward_bytes(ranks, width, dtype) for dtype in (torch.float32, torch.bfloat16)]


# 2 and 4 share the four heads, 3, 6 and 8 the tokens of the history too; chunks have 24 or 30 tokens.
@pytest.mark.parametrize(
    ("size", "width"),
    [(2, 10), (3, 8), (4, 10), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in [(6, 8), (8, 10)])],
    ids=str,
)
def test_ranks_equal_one(pool, size, width):
    torch.set_num_threads(1)
    saved = pool(size, on_rank, width)
    alone = [sample(ALONE, *case, width) for case in CASES]
    for (_, policy), (_, taken, _) in zip(CASES, alone, strict=True):  # reuse does skip
        assert all(compute for *_, compute, _, _ in taken) == (policy.reuse is None)
    together = [outcome for outcome, _ in saved]
    assert all(sent == expected and min(sent) > 0 for _, forwards in saved for sent, expected in forwards)
    for outcomes in together:
        for (latents, decisions, _), (expected, taken, _) in zip(outcomes, alone, strict=True):
            torch.testing.assert_close(torch.from_numpy(latents), expected, atol=1e-4, rtol=0)
            assert [(*visit[:4], visit[5]) for visit in decisions] == [(*visit[:4], visit[5]) for visit in taken]
            distances = [(visit[4], one[4]) for visit, one in zip(decisions, taken, strict=True) if one[4] is not None]
            assert all(several == pytest.approx(one, rel=1e-5) for several, one in distances)
    for number, (case, (*_, total)) in enumerate(zip(CASES, alone, strict=True)):
        held = [outcomes[number][2] for outcomes in together]
        assert sum(kv for kv, _ in held) == total[0]
        if 3 * width % size == 0:  # tokens are shared evenly
            assert {kv for kv, _ in held} == {total[0] // size}
        assert predicted(1, *case, width) == total
        assert predicted(size, *case, width) == tuple(map(max, zip(*held, strict=True)))


def test_dimensions():
    """Heads first, as far as they go; the rest splits the history."""
    assert [head_groups(ranks, 12) for ranks in (1, 2, 3, 5, 8, 24)] == [1, 2, 3, 1, 4, 12]
    assert shares(10, 4) == [2, 3, 2, 3] and sum(shares(7, 3)) == 7


def test_more_ranks_than_tokens_are_refused():
    class Eight:
        size, rank = 8, 0

    model = SkyReelsTransformer(SkyReelsConfig(32, 64, 4, 1))
    sharded = shard(model, GangMesh(Eight(), Eight(), Eight()))
    with pytest.raises(ValueError, match="8 ranks can't share a chunk of 6 tokens; accepted: 1 to 6 ranks"):
        sharded.embed(torch.randn(1, 16, 3, 2, 4))
    assert shard(model, ALONE) is model
