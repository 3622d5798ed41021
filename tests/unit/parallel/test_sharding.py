"""N ranks give what one gives: real gloo process groups, spawned processes, a tiny model."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from flowcache.cache.kv_compress import Compression
from flowcache.cache.reuse import Policy, Reuse
from flowcache.models.skyreels.config import SkyReelsConfig
from flowcache.models.skyreels.transformer import SkyReelsTransformer
from flowcache.parallel.apply import degrees, shard
from flowcache.parallel.mesh import Mesh
from flowcache.sampling.denoise import SamplerSettings, Texts, denoise

SETTINGS = SamplerSettings(steps=6, shift=3.0, guidance=3.0, ar_step=3, chunk=2, fps=24)
REUSE = Reuse(threshold=1.0, ret_steps=2, coefficients=(1.0, 0.0))
POLICIES = [
    Policy("off"),
    Policy("dense", attention="full"),
    Policy("paper", REUSE, history="keep"),
    Policy("budget", REUSE, history="keep", clean=1, compression=Compression()),
]


def sample(mesh: Mesh | None, policy: Policy):
    """Latents and decisions of three chunks after a given one, with a given frame in the first and in the last."""
    torch.manual_seed(0)
    model = SkyReelsTransformer(SkyReelsConfig(32, 64, 4, 2, in_channels=4, out_channels=4, text_dim=8, freq_dim=16))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    noise, prefix, end = torch.randn(4, 8, 8, 8), torch.randn(4, 3, 8, 8), torch.randn(4, 1, 8, 8)
    condition_noise = torch.randn(20, 4, 2, 8, 8)  # for each row
    texts, visits = Texts(torch.randn(1, 3, 8), torch.randn(1, 3, 8)), []
    sharded = model if mesh is None else shard(model, mesh)
    given = {"prefix": prefix, "condition_noise_of": condition_noise.__getitem__, "end": end}
    chunks = list(denoise(sharded, noise, texts, SETTINGS, policy, observe=visits.append, **given))
    decisions = [(visit.row, visit.chunk, visit.branch, visit.decision) for visit in visits]
    return torch.cat([chunk.latents for chunk in chunks], dim=1), decisions


def rank_main(rank, size, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    mesh = Mesh(dist.group.WORLD)
    outcome = [sample(mesh, policy) for policy in POLICIES]
    torch.save(outcome, f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_equal_one(size, tmp_path):
    torch.set_num_threads(1)
    mp.start_processes(rank_main, args=(size, str(tmp_path)), nprocs=size, start_method="spawn")
    alone = [sample(None, policy) for policy in POLICIES]
    assert not all(decision.compute for *_, decision in alone[2][1])  # the policy does skip
    for rank in range(size):
        together = torch.load(tmp_path / f"rank{rank}.pt", weights_only=False)
        for (latents, decisions), (expected, taken) in zip(together, alone, strict=True):
            torch.testing.assert_close(latents, expected, atol=1e-4, rtol=0)
            assert decisions == taken


def test_degrees():
    assert degrees(12, 10200) == [1, 2, 3, 4, 6, 12]
    assert degrees(4, 6) == [1, 2]


class FakeMesh:
    rank = 0

    def __init__(self, size):
        self.size = size


def test_what_does_not_divide_is_refused():
    model = SkyReelsTransformer(SkyReelsConfig(32, 64, 4, 1))
    with pytest.raises(ValueError, match=r"3 ranks can't share 4 attention heads; working degrees: \[1, 2, 4\]"):
        shard(model, FakeMesh(3))
    latents = torch.randn(1, 16, 3, 2, 4)  # six tokens
    with pytest.raises(ValueError, match=r"4 ranks can't share a chunk of 6 tokens; working degrees: \[1, 2\]"):
        shard(model, FakeMesh(4)).embed(latents)
    assert shard(model, FakeMesh(2)).embed(latents).shape == (1, 3, 32)
    assert shard(model, FakeMesh(1)) is model
