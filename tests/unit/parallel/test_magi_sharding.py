"""N ranks give what one gives on MAGI-1: shared K/V heads, a signal of tokens, chunks alone, cuts after a row."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from flowcache.cache.kv_compress import Compression
from flowcache.cache.reuse import Policy, Reuse
from flowcache.models.magi.config import MagiConfig
from flowcache.models.magi.transformer import MagiTransformer
from flowcache.parallel.apply import shard
from flowcache.parallel.mesh import ALONE, Ranks, arrange
from flowcache.records import Pipeline
from flowcache.sampling.denoise import MagiSettings, Texts, denoise

REUSE = Reuse(threshold=0.4, ret_steps=1, coefficients=(1.0, 0.0))
RUNS = [
    (Pipeline(), Policy("off", history="refresh")),
    (Pipeline(passes=1, distilled=True), Policy("flowcache", REUSE, "refresh", repeats="velocity")),
    (
        Pipeline(passes=1, distilled=True),
        Policy("paper", REUSE, "keep", clean=1, compression=Compression(), repeats="increment", cut="after"),
    ),
]


def sample(ranks: Ranks, pipeline: Pipeline, policy: Policy):
    """Latents and decisions of five chunks after a given one."""
    torch.manual_seed(0)
    config = MagiConfig(
        dim=32,
        ffn_dim=64,
        heads=8,
        kv_heads=2,
        head_dim=8,
        layers=2,
        channels=4,
        text_dim=4,
        text_len=60,
        condition_dim=16,
    )
    sharded = shard(MagiTransformer(config).requires_grad_(False), ranks)
    noise, prefix, texts, visits = torch.randn(4, 12, 4, 6), torch.randn(4, 3, 4, 6), Texts(torch.randn(1, 3, 4)), []
    history = sharded.history() if ranks is not ALONE else None
    settings = MagiSettings(4, 1, 2, 24, 7.5, pipeline)
    chunks = list(denoise(sharded, noise, texts, settings, policy, prefix, observe=visits.append, history=history))
    decisions = [(visit.row, visit.chunk, visit.branch, visit.decision.compute, visit.seen) for visit in visits]
    return torch.cat([chunk.latents for chunk in chunks], dim=1), decisions


def rank_main(rank, size, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    ranks = arrange(dist.group.WORLD, 2)
    torch.save([sample(ranks, *run) for run in RUNS], f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [2, 3])  # the K/V heads, or the history's tokens
def test_ranks_equal_one(size, tmp_path):
    torch.set_num_threads(1)
    mp.start_processes(rank_main, args=(size, str(tmp_path)), nprocs=size, start_method="spawn")
    alone = [sample(ALONE, *run) for run in RUNS]
    assert not all(compute for *_, compute, _ in alone[1][1])
    for rank in range(size):
        outcomes = torch.load(tmp_path / f"rank{rank}.pt", weights_only=False)
        for (latents, decisions), (expected, taken) in zip(outcomes, alone, strict=True):
            torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)
            assert decisions == taken
