"""What `flowcache plan` predicts for gangs, beside what gangs over gloo take: own work, exchange, efficiency.

python -m benchmarks.gang_cost forwards chunks against a history of four (the model of benchmarks.gangs). Predictions
follow from one rank's step and from the link, both measured in the same run. Others may use the machine, so a rank's
own work is counted in CPU seconds, and of each collective the best of --repeats. Before it the ranks wait for one
another, which is timed apart and not predicted.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.gangs import CONFIG, FRAMES, HISTORY, SIDE
from flowcache.bench.statistics import markdown
from flowcache.cache.kv_cache import KVStore
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.parallel.apply import shard
from flowcache.parallel.mesh import ALONE, GangMesh, Mesh, arrange
from flowcache.planner.hardware import Link
from flowcache.planner.rank_work import rank_work
from flowcache.sampling.dry_run import WindowWork

TOKENS = FRAMES * (SIDE // 2) ** 2
FORWARD = WindowWork(1, (HISTORY + 1) * TOKENS, TOKENS, 1, HISTORY + 1, kv_branches=1, steps=1, chunks_in_flight=1)
MESSAGE = 2**18  # bytes, about those of one exchange


@dataclass(frozen=True)
class Apart(Mesh):
    """A mesh that notes for each collective: seconds of waiting, of exchanging, this thread's CPU seconds in both."""

    spent: list[tuple[float, float, float]] = field(default_factory=list)

    def all_to_all(self, parts, sizes):
        return self.timed(super().all_to_all, parts, sizes)

    def all_gather(self, part, dim, sizes):
        return self.timed(super().all_gather, part, dim, sizes)

    def timed(self, call, *arguments):
        if not self.group:
            return call(*arguments)
        used, began = time.thread_time(), time.perf_counter()
        dist.barrier(self.group)
        ready = time.perf_counter()
        result = call(*arguments)
        self.spent.append((ready - began, time.perf_counter() - ready, time.thread_time() - used))
        return result


@torch.inference_mode()
def measure(ranks: GangMesh, repeats: int) -> dict[str, float]:
    """Seconds of the last chunk's forward on this rank: all, own work (CPU), waiting, exchange."""
    torch.manual_seed(0)
    spent: list[tuple[float, float, float]] = []
    sharded = shard(
        SkyReelsTransformer(CONFIG),
        GangMesh(*(Apart(mesh.group, spent) for mesh in (ranks.all, ranks.heads, ranks.history))),
    )
    sharding = sharded.kv_sharding() if ranks is not ALONE else None
    x = torch.randn(1, 8, FRAMES, SIDE, SIDE)
    grids = [sharded.grid(x, chunk * FRAMES) for chunk in range(HISTORY + 1)]
    shape = (CONFIG.layers, 1, sharded.kv_heads, sharded.head_dim)
    store = KVStore(shape, TOKENS, HISTORY + 1, torch.float32, torch.device("cpu"), sharding=sharding)
    conditioning = sharded.condition(torch.full((1, FRAMES), 500.0), grids[0], 24)
    text = sharded.text(torch.randn(1, CONFIG.text_len, 32))

    def forward(chunk: int) -> tuple[float, float, list[tuple[float, float, float]]]:
        """Seconds, CPU seconds, and what its collectives took."""
        spent.clear()
        used, began = time.thread_time(), time.perf_counter()
        attend, _ = store.view(0, chunk)
        out = sharded.transform(sharded.embed(x), conditioning, [text], [sharded.rope(grids[chunk])], attend)
        sharded.project(out, conditioning, grids[chunk])
        return time.perf_counter() - began, time.thread_time() - used, list(spent)

    for chunk in range(HISTORY):
        forward(chunk)
    runs = [forward(HISTORY) for _ in range(repeats)]
    collectives = list(zip(*(each for _, _, each in runs), strict=True))  # each of them in all runs
    return {
        "step": min(seconds for seconds, _, _ in runs),
        "own": min(used - sum(inside for _, _, inside in each) for _, used, each in runs),
        "waiting": sum(min(waiting for waiting, _, _ in one) for one in collectives),
        "exchange": sum(min(exchange for _, exchange, _ in one) for one in collectives),
    }


def link_of(mesh: Mesh, repeats: int) -> dict[str, float]:
    """Seconds that an exchange takes whatever it carries, and bytes that a rank sends in a second beyond."""
    other = torch.zeros(2**21)

    def best(numbers: int) -> float:
        parts, sizes, times = [torch.zeros(numbers)] * mesh.size, [numbers] * mesh.size, []
        for _ in range(repeats * 10):
            other.add_(1)  # caches hold something else by now, as between the exchanges of a forward
            dist.barrier(mesh.group)
            times.append(clocked(lambda: mesh.all_to_all(parts, sizes)))
        return min(times)

    latency = best(1)
    return {"latency": latency, "speed": MESSAGE / (best(MESSAGE // 4 // (mesh.size - 1)) - latency)}


def clocked(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def rank_main(rank: int, size: int, folder: str, repeats: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    ranks = arrange(dist.group.WORLD, CONFIG.heads)
    measured = measure(ranks, repeats) | link_of(ranks.all, repeats)
    if rank == 0:
        torch.save(measured, f"{folder}/measured.pt")
    dist.barrier()
    dist.destroy_process_group()


def gang(size: int, repeats: int) -> dict[str, float]:
    """Rank 0's measurements in a gang of `size` processes."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(rank_main, args=(size, folder, repeats), nprocs=size, start_method="spawn")
        return torch.load(Path(folder) / "measured.pt", weights_only=True)


def compared(size: int, of: dict[str, float], alone: dict[str, float]) -> list[str]:
    """Measured, predicted: own work, exchange, and efficiency but for waiting."""
    found, link = rank_work(CONFIG, FORWARD, size, item=4), Link(of["speed"], of["latency"])
    own = found.flops * alone["own"] / rank_work(CONFIG, FORWARD, 1).flops
    exchange = link.seconds(found.sent, found.collectives)
    pairs = (of["own"], own), (of["exchange"], exchange)
    times = [f"{seconds * 1e3:.1f}" for pair in pairs for seconds in pair]
    steps = of["own"] + of["exchange"], own + exchange
    efficiency = [f"{alone['own'] / size / step:.2f}" for step in steps]
    return [str(size), f"{link.speed / 1e9:.2f}", f"{link.latency * 1e3:.2f}", *times, *efficiency,
            f"{of['waiting'] * 1e3:.1f}", f"{of['step'] * 1e3:.0f}"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    alone = measure(ALONE, arguments.repeats)
    rows = [compared(size, gang(size, arguments.repeats), alone) for size in arguments.ranks]
    print(f"one rank: {alone['own'] * 1e3:.1f} ms of CPU, {alone['step'] * 1e3:.0f} ms; {os.cpu_count()} cores\n")
    heads = ["ranks", "link, GB/s", "a collective, ms", "own work (CPU), ms", "predicted", "exchange, ms", "predicted",
             "efficiency but for waiting", "predicted", "waiting, ms", "step, ms"]  # fmt: skip
    print(markdown(heads, rows))


if __name__ == "__main__":
    main()
