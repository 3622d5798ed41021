"""Weights that ranks share give what whole ones give: real gloo process groups, both families, uneven shares."""

import gc
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed.tensor import DTensor

from flowcache.cache.policy import Policy
from flowcache.families.known import family_of
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.memory import weight_bytes
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.models import part as parts
from flowcache.models.compile import compile_blocks
from flowcache.models.part import Part
from flowcache.models.tensors import in_folder
from flowcache.parallel.apply import shard
from flowcache.parallel.mesh import GangMesh, Mesh, arrange
from flowcache.parallel.sharding import load_sharded
from flowcache.sampling.loop import Texts, denoise
from tests.unit.parallel.pool import start_ranks

pytestmark = pytest.mark.long  # eight runs on three ranks, of which some compile

CONFIGS = {
    "skyreels": SkyReelsConfig(32, 64, 4, 2, in_channels=4, out_channels=4, text_dim=8, freq_dim=16),
    "magi": MagiConfig(64, 128, 8, 4, 16, 2, channels=4, text_dim=8, text_len=3, condition_dim=16),
}
SETTINGS = {
    "skyreels": SamplerSettings(steps=3, shift=3.0, guidance=3.0, ar_step=1, chunk=2, fps=24),
    "magi": MagiSettings(2, 1, 2, 24, guidance=7.5, pipeline=Pipeline(2, kv_ranges=(), clean_kv_range=-1)),
}
CASES = [(family, dtype) for family in CONFIGS for dtype in (torch.float32, torch.bfloat16)]


def write(folder: Path, family: str) -> None:
    """In float64, so that every tensor is cast: a CPU's kernels round otherwise where mapped ones lie unaligned."""
    torch.manual_seed(0)
    state = family_of(CONFIGS[family]).build(CONFIGS[family]).state_dict()
    (folder / family).mkdir()
    save_file(
        {name: torch.randn_like(x).double() * 0.2 for name, x in state.items()}, folder / family / "model.safetensors"
    )


def stored(folder: Path, family: str) -> Part:
    with torch.device("meta"):
        module = family_of(CONFIGS[family]).build(CONFIGS[family])
    return Part(folder / family, module, in_folder(folder / family))


def sample(model, ranks: GangMesh, family: str) -> torch.Tensor:
    """Two chunks, by all ranks together."""
    torch.manual_seed(1)
    texts = Texts(torch.randn(1, 3, 8), torch.randn(1, 3, 8))
    model, policy = shard(model, ranks), Policy("off", kv_update="refresh" if family == "magi" else "")
    made = denoise(model, torch.randn(4, 4, 6, 8), texts, SETTINGS[family], policy, kv_sharding=model.kv_sharding())
    return torch.cat([chunk.latents for chunk in made], dim=1)


@torch.inference_mode()
def forward(model, ranks: GangMesh, before: list) -> None:
    """One chunk through the blocks, attention left out; `before` is emptied when nothing else is to come."""
    model, latents = shard(model, ranks), torch.randn(1, 4, 2, 6, 8)
    grid = model.grid(latents)
    conditioning, text = model.condition(torch.full((1, 2), 500.0), grid, 24), model.text(torch.randn(1, 3, 8))
    before.clear()
    model.transform(model.embed(latents), conditioning, [text], [model.rope(grid)], lambda layer, q, k, v: q)


def reading(read, seen: Counter):
    def counted(*args):
        for entry, tensor in read(*args):
            seen[entry.name] += tensor.nbytes
            yield entry, tensor

    return counted


def gathering(gather, seen: list):
    def counted(output_tensor, input_tensor, **kwargs):
        seen.append(input_tensor.nbytes)
        return gather(output_tensor, input_tensor, **kwargs)

    return counted


def observe(folder: Path, ranks: GangMesh, family: str, dtype: torch.dtype) -> dict:
    """What whole and sharded weights give, and what the sharded ones take here."""
    keep, read, gathered = family_of(CONFIGS[family]).keep_float32, Counter(), []
    whole = sample(stored(folder, family).load("cpu", dtype, keep), ranks, family)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "read", reading(parts.read, read))
        patch.setattr(dist, "all_gather_single", gathering(dist.all_gather_single, gathered))
        model = load_sharded(stored(folder, family), "cpu", dtype, keep, ranks=ranks.all)
        sharded = sample(model, ranks, family)
        forward(model, ranks, gathered)
    parameters = [p._local_tensor if isinstance(p, DTensor) else p for p in model.parameters()]
    held = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in parameters}
    graphs = compiled_graphs(model, ranks, family, whole) if dtype == torch.float32 and ranks.all.size == 2 else None
    kept, noted = weakref.ref(model), len(model._get_fsdp_state()._comm_ctx.post_forward_order)
    del model, parameters
    gc.collect()
    return {"equal": torch.equal(whole, sharded), "read": read, "gathered": gathered, "held": sum(held.values()),
            "noted": noted, "freed": kept() is None, "graphs": graphs}  # fmt: skip


def compiled_graphs(model, ranks: GangMesh, family: str, expected: torch.Tensor) -> tuple[int, int]:
    """How many there are after one window and after two, which give what was expected."""
    counter, after = CompileCounterWithBackend("aot_eager"), []
    compile_blocks(model, counter)
    for _ in range(2):
        torch.testing.assert_close(sample(model, ranks, family), expected, atol=1e-4, rtol=1e-4)
        after.append(counter.frame_count)
    return tuple(after)


def rank_main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=3)
    pair = Mesh(dist.new_group([0, 1]))
    three = arrange(dist.group.WORLD, 4)
    seen = {(3, *case): observe(folder, three, *case) for case in CASES}
    if rank < 2:
        seen |= {(2, *case): observe(folder, GangMesh(pair, pair, Mesh(None)), *case) for case in CASES}
    torch.save(seen, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """By (ranks, family, dtype), of each rank."""
    folder = tmp_path_factory.mktemp("sharded")
    for family in CONFIGS:
        write(folder, family)
    start_ranks(rank_main, 3, folder)
    saved = [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(3)]
    return {case: [each[case] for each in saved if case in each] for case in saved[0]}


def test_sharded_weights_give_the_bits_of_whole_ones(seen):
    assert {(size, len(ranks)) for (size, *_), ranks in seen.items()} == {(2, 2), (3, 3)}
    assert all(rank["equal"] for ranks in seen.values() for rank in ranks)


def test_each_byte_of_a_block_is_read_by_one_rank(seen):
    for (_, family, _), ranks in seen.items():
        with torch.device("meta"):
            model = family_of(CONFIGS[family]).build(CONFIGS[family])
        blocks = {name for name, _ in model.named_parameters() if "blocks" in name and "final" not in name}
        for name, parameter in model.named_parameters():
            together = [rank["read"][name] for rank in ranks]
            assert sum(together) == parameter.numel() * 8 * (1 if name in blocks else len(ranks))
            assert name not in blocks or max(together) <= -(-len(parameter) // len(ranks)) * parameter[0].numel() * 8


def test_what_is_held_and_sent_is_what_was_estimated(seen):
    for (size, family, dtype), ranks in seen.items():
        if dtype == torch.bfloat16:
            estimate = weight_bytes(CONFIGS[family], size)
            for rank in ranks:
                assert sum(rank["gathered"]) * (size - 1) == estimate.sent
                assert rank["held"] == estimate.resident


def test_blocks_of_sharded_weights_compile_once(seen):
    """One graph for each of a block's units, whatever the layer."""
    graphs = {family: {rank["graphs"] for rank in seen[2, family, torch.float32]} for family in CONFIGS}
    assert graphs == {"skyreels": {(3, 3)}, "magi": {(2, 2)}}


def test_nothing_piles_up_and_nothing_stays(seen):
    """FSDP notes the order of forwards; a model that is dropped is freed."""
    assert all(rank["noted"] == 0 and rank["freed"] for ranks in seen.values() for rank in ranks)
