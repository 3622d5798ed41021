"""What ranks cost and gain: step time, its parts, and bytes, for gangs of 1 to 4, as ratios from one run.

python -m benchmarks.gangs forwards chunks against a history of four, with a small random transformer over gloo, one
thread a rank. Gangs larger than the machine's cores take turns on them: read their bytes, not their times.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.statistics import markdown
from flowcache.cache.kv_store import KVStore
from flowcache.models.skyreels.config import SkyReelsConfig
from flowcache.models.skyreels.transformer import SkyReelsTransformer
from flowcache.parallel.apply import shard
from flowcache.parallel.mesh import ALONE, Mesh, Ranks, arrange
from flowcache.parallel.traffic import Shape, sent_bytes

CONFIG = SkyReelsConfig(256, 1024, 4, 4, in_channels=8, out_channels=8, text_dim=32, freq_dim=64)
FRAMES, SIDE, HISTORY = 5, 24, 4  # latent frames and latent pixels of a chunk; chunks before it


@dataclass(frozen=True)
class Timed(Mesh):
    """A mesh that sums up the seconds it spends on exchanges."""

    seconds: list[float]

    def exchange(self, parts, sizes):
        began = time.perf_counter()
        result = super().exchange(parts, sizes)
        self.seconds.append(time.perf_counter() - began)
        return result

    def gather(self, part, dim, sizes):
        began = time.perf_counter()
        result = super().gather(part, dim, sizes)
        self.seconds.append(time.perf_counter() - began)
        return result


@torch.inference_mode()
def measure(ranks: Ranks, repeats: int) -> dict[str, float]:
    """Medians over `repeats` of the last chunk's forward, in seconds; bytes kept and sent by this rank."""
    torch.manual_seed(0)
    seconds: list[float] = []
    meshes = (Timed(mesh.group, seconds) for mesh in (ranks.all, ranks.heads, ranks.history))
    sharded = shard(SkyReelsTransformer(CONFIG), Ranks(*meshes))
    history = sharded.history() if ranks is not ALONE else None
    x = torch.randn(1, 8, FRAMES, SIDE, SIDE)
    grids = [sharded.grid(x, chunk * FRAMES) for chunk in range(HISTORY + 1)]
    tokens, shape = grids[0].tokens, (CONFIG.layers, 1, sharded.kv_heads, sharded.head_dim)
    store = KVStore(shape, tokens, HISTORY + 1, torch.float32, torch.device("cpu"), history=history)
    conditioning = sharded.condition(torch.full((1, FRAMES), 500.0), grids[0], 24)
    text = sharded.text(torch.randn(1, 8, 32))

    def forward(chunk: int) -> None:
        attend, _ = store.view(0, chunk)
        out = sharded.transform(sharded.embed(x), conditioning, text, sharded.rope(grids[chunk]), attend)
        sharded.project(out, conditioning, grids[chunk])

    for chunk in range(HISTORY):
        forward(chunk)
    times, exchanged = [], []
    for _ in range(repeats):
        seconds.clear()
        began = time.perf_counter()
        forward(HISTORY)
        times.append(time.perf_counter() - began)
        exchanged.append(sum(seconds))
    of_chunk = Shape(tokens, CONFIG.layers, CONFIG.heads, CONFIG.heads, CONFIG.dim // CONFIG.heads, 4)
    median = sorted(range(repeats), key=times.__getitem__)[repeats // 2]
    sent = sent_bytes(of_chunk, ranks.all.size, ranks.all.rank)
    return {"step": times[median], "exchange": exchanged[median], "kv": store.bytes, "sent": sent}


def rank_main(rank: int, size: int, folder: str, repeats: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    measured = measure(arrange(dist.group.WORLD, CONFIG.heads), repeats)
    if rank == 0:
        torch.save(measured, f"{folder}/measured.pt")
    dist.barrier()
    dist.destroy_process_group()


def gang(size: int, repeats: int) -> dict[str, float]:
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
    alone, rows = measured[1], []
    for size, of in measured.items():
        rows.append([
            str(size),
            f"{of['step'] * 1e3:.0f}",
            f"{of['step'] / alone['step']:.2f}",
            f"{(of['step'] - of['exchange']) / alone['step']:.2f}",
            f"{of['exchange'] / alone['step']:.2f}",
            f"{of['kv'] / alone['kv']:.3f}",
            f"{of['sent'] / 2**20:.2f}",
        ])  # fmt: skip
    tokens = FRAMES * (SIDE // 2) ** 2
    print(
        f"{CONFIG.layers} layers, 4 heads of 64, {tokens} tokens a chunk, {HISTORY} before it, {os.cpu_count()} cores\n"
    )
    heads = ["ranks", "step, ms", "of one rank's", "own work", "exchange and waiting", "K/V a rank", "sent, MiB"]
    print(markdown(heads, rows))


if __name__ == "__main__":
    main()
