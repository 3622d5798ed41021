"""N ranks give what one gives, for MAGI-1: fewer K/V heads, a signal of tokens, forwards that keep nothing."""

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

CONFIG = MagiConfig(
    dim=32, ffn_dim=48, heads=4, kv_heads=2, head_dim=8, layers=2, channels=4, text_dim=8, text_len=60, condition_dim=8
)
REUSE = Reuse(threshold=0.3, ret_steps=2, coefficients=(1.0, 0.0))
RUNS = [
    (Pipeline(window=2), Policy("off", history="refresh")),
    (Pipeline(window=2, passes=1, distilled=True), Policy("flowcache", REUSE, history="refresh", repeats="velocity")),
    (
        Pipeline(window=2, passes=1, distilled=True),
        Policy("budget", REUSE, "refresh", clean=1, compression=Compression(), repeats="velocity"),
    ),
]


def sample(ranks: Ranks, pipeline: Pipeline, policy: Policy):
    """Latents and decisions of three chunks after a given one."""
    torch.manual_seed(0)
    model = MagiTransformer(CONFIG).requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    noise, prefix, visits = torch.randn(4, 8, 6, 8), torch.randn(4, 3, 6, 8), []
    sharded, given = shard(model, ranks), MagiSettings(6, 3, 2, 24, 7.5, pipeline)
    history = sharded.history() if ranks is not ALONE else None
    texts = Texts(torch.randn(1, 3, 8))
    chunks = list(denoise(sharded, noise, texts, given, policy, prefix, observe=visits.append, history=history))
    decisions = [(visit.row, visit.chunk, visit.branch, visit.decision.compute, visit.seen) for visit in visits]
    return torch.cat([chunk.latents for chunk in chunks], dim=1), decisions


def rank_main(rank, size, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    ranks = arrange(dist.group.WORLD, CONFIG.kv_heads)
    torch.save([sample(ranks, *run) for run in RUNS], f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


# 2 share the two K/V heads, 4 the tokens of the history too, 3 those alone.
@pytest.mark.parametrize("size", [4, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_equal_one(size, tmp_path):
    torch.set_num_threads(1)
    mp.start_processes(rank_main, args=(size, str(tmp_path)), nprocs=size, start_method="spawn")
    alone = [sample(ALONE, *run) for run in RUNS]
    assert not all(compute for *_, compute, _ in alone[1][1])  # the policy does skip
    for rank in range(size):
        outcomes = torch.load(tmp_path / f"rank{rank}.pt", weights_only=False)
        for (latents, decisions), (expected, taken) in zip(outcomes, alone, strict=True):
            torch.testing.assert_close(latents, expected, atol=1e-3, rtol=0)
            assert decisions == taken
