"""What ranks cost and gain: step time, its parts, and bytes, for gangs of 1 to 4, as ratios from one run.

python -m benchmarks.gangs forwards chunks against a history of four, with a small random transformer over gloo, one
thread a rank. Gangs larger than the cores that are free take turns on them: read their work and bytes, not their times.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from flowcache.bench.statistics import markdown
from flowcache.cache.kv_cache import KVStore, Unsharded
from flowcache.cache.kv_select import Compression
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.parallel.apply import shard
from flowcache.parallel.mesh import ALONE, GangMesh, Mesh, arrange

CONFIG = SkyReelsConfig(256, 1024, 4, 4, in_channels=8, out_channels=8, text_dim=32, freq_dim=64)
FRAMES, SIDE, HISTORY = 5, 24, 4  # latent frames and latent pixels of a chunk; chunks before it
TITLES = {"forward": "A chunk's forward:", "compression": "Compression of one layer's history, once for each chunk:"}


@dataclass(frozen=True)
class Timed(Mesh):
    """A mesh that keeps what its exchanges take: (seconds, CPU seconds of this thread, bytes sent)."""

    spent: list[tuple[float, float, int]]

    def all_to_all(self, parts, sizes):
        sent = sum(part.nbytes for rank, part in enumerate(parts) if rank != self.rank)
        return self.timed(sent, super().all_to_all, parts, sizes)

    def all_gather(self, part, dim, sizes):
        sent = (self.size - 1) * part.nbytes // part.shape[dim] * max(sizes)
        return self.timed(sent, super().all_gather, part, dim, sizes)

    def timed(self, sent, call, *arguments):
        result, *took = timed(call, *arguments)
        self.spent.append((*took, sent))
        return result


def timed(call: Callable, *arguments) -> tuple:
    """Its result, seconds and CPU seconds of this thread."""
    began, worked = time.perf_counter(), time.thread_time()
    result = call(*arguments)
    return result, time.perf_counter() - began, time.thread_time() - worked


def medians(call: Callable, arguments: tuple, repeats: int, spent: list) -> dict[str, float]:
    """What the call takes: seconds, those of exchanges, bytes sent, and "work", its CPU seconds outside of exchanges.

    These don't depend on whether ranks wait for a core.
    """
    measured = []
    for _ in range(repeats):
        spent.clear()
        _, seconds, work = timed(call, *arguments)
        exchange, inside, sent = (sum(of) for of in zip((0.0, 0.0, 0), *spent, strict=True))
        measured.append({"seconds": seconds, "exchange": exchange, "work": work - inside, "sent": sent})
    return {name: statistics.median(of[name] for of in measured) for name in measured[0]}


@torch.inference_mode()
def measure(ranks: GangMesh, repeats: int) -> dict[str, dict[str, float]]:
    """Of the last chunk's forward, and of compressing one layer's history by the chunk's length, on this rank."""
    torch.manual_seed(0)
    spent: list[tuple[float, float, int]] = []
    meshes = (Timed(mesh.group, spent) for mesh in (ranks.all, ranks.heads, ranks.history))
    sharded = shard(SkyReelsTransformer(CONFIG), GangMesh(*meshes))
    sharding = sharded.kv_sharding() if ranks is not ALONE else Unsharded()
    x = torch.randn(1, 8, FRAMES, SIDE, SIDE)
    grids = [sharded.grid(x, chunk * FRAMES) for chunk in range(HISTORY + 1)]
    tokens, shape = grids[0].tokens, (CONFIG.layers, 1, sharded.kv_heads, sharded.head_dim)
    store = KVStore(shape, tokens, HISTORY + 1, torch.float32, torch.device("cpu"), sharding=sharding)
    conditioning = sharded.condition(torch.full((1, FRAMES), 500.0), grids[0], 24)
    text = sharded.text(torch.randn(1, 8, 32))

    def forward(chunk: int) -> None:
        attend, _ = store.view(0, chunk)
        out = sharded.transform(sharded.embed(x), conditioning, [text], [sharded.rope(grids[chunk])], attend)
        sharded.project(out, conditioning, grids[chunk])

    for chunk in range(HISTORY):
        forward(chunk)
    keys, values = (x[0] for x in store.buffer.read(0, slice(0, 1), slice(None)))
    compressed = (Compression().select, torch.randn_like(keys[: store.tokens]), keys, values)
    return {
        "forward": medians(forward, (HISTORY,), repeats, spent) | {"kv": store.bytes},
        "compression": medians(sharding.keep, (*compressed, HISTORY * store.tokens, tokens), repeats, spent),
    }


def rank_main(rank: int, size: int, folder: str, repeats: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    measured = measure(arrange(dist.group.WORLD, CONFIG.heads), repeats)
    if rank == 0:
        torch.save(measured, f"{folder}/measured.pt")
    dist.barrier()
    dist.destroy_process_group()


def gang(size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Rank 0's measurements in a gang of `size` processes."""
    if size == 1:
        return measure(ALONE, repeats)
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(rank_main, args=(size, folder, repeats), nprocs=size, start_method="spawn")
        return torch.load(Path(folder) / "measured.pt", weights_only=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = {size: gang(size, arguments.repeats) for size in arguments.ranks}
    tokens, cores = FRAMES * (SIDE // 2) ** 2, os.cpu_count()
    print(f"{CONFIG.layers} layers, 4 heads of 64, {tokens} tokens a chunk, {HISTORY} before it, fp32, {cores} cores")
    for name in ("forward", "compression"):
        print(f"\n{TITLES[name]}\n\n{table({size: of[name] for size, of in measured.items()})}")


def table(measured: dict[int, dict[str, float]]) -> str:
    alone = measured[1]
    heads = ["ranks", "ms", "of one rank's", "own work (CPU)", "exchange and waiting", "sent, MiB"]
    rows = [
        [
            str(size),
            f"{of['seconds'] * 1e3:.0f}",
            f"{of['seconds'] / alone['seconds']:.2f}",
            f"{of['work'] / alone['work']:.2f}",
            f"{of['exchange'] / alone['seconds']:.2f}",
            f"{of['sent'] / 2**20:.2f}",
            *([f"{of['kv'] / alone['kv']:.3f}"] if "kv" in of else []),
        ]
        for size, of in measured.items()
    ]
    return markdown([*heads, *(["K/V a rank"] if "kv" in alone else [])], rows)


if __name__ == "__main__":
    main()
