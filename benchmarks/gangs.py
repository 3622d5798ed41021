"""What ranks cost and gain: step time, its parts, and bytes, for gangs of 1 to 4, as ratios from one run.

python -m benchmarks.gangs forwards chunks against a history of four, with a small random transformer over gloo, one
thread a rank. Beside times stand those that `flowcache plan` would predict, from one rank's step and from the link,
measured in the same run. All are the best of --repeats, as others may use the machine: of each collective, and of a
rank's own work in CPU seconds. Before each exchange ranks wait for one another, which is timed on its own, and is not
predicted. Gangs
larger than the machine's cores take turns on them: read their bytes, not their times.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.statistics import markdown
from flowcache.batch.gang_cost import load, shape_of
from flowcache.batch.node import Link
from flowcache.cache.kv_store import KVStore
from flowcache.models.skyreels.config import SkyReelsConfig
from flowcache.models.skyreels.transformer import SkyReelsTransformer
from flowcache.parallel.apply import shard
from flowcache.parallel.mesh import ALONE, Mesh, Ranks, arrange
from flowcache.parallel.traffic import sent_bytes
from flowcache.sampling.dry_run import WindowWork

CONFIG = SkyReelsConfig(256, 1024, 4, 4, in_channels=8, out_channels=8, text_dim=32, text_len=8, freq_dim=64)
FRAMES, SIDE, HISTORY = 5, 24, 4  # latent frames and latent pixels of a chunk; chunks before it
TOKENS = FRAMES * (SIDE // 2) ** 2
FORWARD = WindowWork(1, (HISTORY + 1) * TOKENS, TOKENS, 1, HISTORY + 1, memories=1, steps=1, flying=1)
MESSAGE = 2**18  # bytes, about those of one exchange
PARTS = {"step": "step", "own": "own", "waiting": "step", "exchange": "step"}  # and of which of one rank's a share


@dataclass(frozen=True)
class Timed(Mesh):
    """A mesh that notes the seconds for which it waits for the others and exchanges, and its CPU seconds in both."""

    waited: list[float] = field(default_factory=list)
    exchanged: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)

    def exchange(self, parts, sizes):
        return self.timed(lambda: super(Timed, self).exchange(parts, sizes))

    def gather(self, part, dim, sizes):
        return self.timed(lambda: super(Timed, self).gather(part, dim, sizes))

    def timed(self, call):
        if not self.group:
            return call()
        began, used = time.perf_counter(), time.thread_time()
        dist.barrier(self.group)
        ready = time.perf_counter()
        result = call()
        self.waited.append(ready - began)
        self.exchanged.append(time.perf_counter() - ready)
        self.used.append(time.thread_time() - used)
        return result


@torch.inference_mode()
def measure(ranks: Ranks, repeats: int) -> dict[str, float]:
    """The last chunk's forward at its best, in seconds; bytes kept and sent by this rank."""
    torch.manual_seed(0)
    notes = waited, exchanged, used = [], [], []
    meshes = (Timed(mesh.group, *notes) for mesh in (ranks.all, ranks.heads, ranks.history))
    sharded = shard(SkyReelsTransformer(CONFIG), Ranks(*meshes))
    history = sharded.history() if ranks is not ALONE else None
    x = torch.randn(1, 8, FRAMES, SIDE, SIDE)
    grids = [sharded.grid(x, chunk * FRAMES) for chunk in range(HISTORY + 1)]
    shape = (CONFIG.layers, 1, sharded.kv_heads, sharded.head_dim)
    store = KVStore(shape, TOKENS, HISTORY + 1, torch.float32, torch.device("cpu"), history=history)
    conditioning = sharded.condition(torch.full((1, FRAMES), 500.0), grids[0], 24)
    text = sharded.text(torch.randn(1, 8, 32))

    def forward(chunk: int) -> None:
        attend, _ = store.view(0, chunk)
        out = sharded.transform(sharded.embed(x), conditioning, text, sharded.rope(grids[chunk]), attend)
        sharded.project(out, conditioning, grids[chunk])

    for chunk in range(HISTORY):
        forward(chunk)
    times, waits, exchanges = [], [], []
    for _ in range(repeats):
        for note in notes:
            note.clear()
        began = time.thread_time()
        step = clocked(partial(forward, HISTORY))
        times.append((step, time.thread_time() - began - sum(used)))
        waits.append(list(waited))
        exchanges.append(list(exchanged))
    step, own = map(min, zip(*times, strict=True))
    best = {"step": step, "own": own, "waiting": best_of_each(waits), "exchange": best_of_each(exchanges)}
    sent = sent_bytes(shape_of(CONFIG, TOKENS, 4), ranks.all.size, ranks.all.rank)
    return best | {"kv": store.bytes, "sent": sent}


def best_of_each(runs: list[list[float]]) -> float:
    """The sum over collectives of the best that each of them took in any of the runs."""
    return sum(map(min, zip(*runs, strict=True)))


def clocked(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def link_of(mesh: Mesh, repeats: int) -> dict[str, float]:
    """Seconds that an exchange takes whatever it carries, and bytes that a rank sends in a second beyond."""

    other = torch.zeros(2**21)

    def best(numbers: int) -> float:
        parts, sizes, times = [torch.zeros(numbers)] * mesh.size, [numbers] * mesh.size, []
        for _ in range(repeats * 10):
            other.add_(1)  # caches hold something else by now, as between the exchanges of a forward
            dist.barrier(mesh.group)
            times.append(clocked(lambda: mesh.exchange(parts, sizes)))
        return min(times)

    latency, numbers = best(1), MESSAGE // 4 // (mesh.size - 1)
    return {"latency": latency, "speed": MESSAGE / (best(numbers) - latency)}


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
    cores = os.cpu_count() or 1
    print(f"{CONFIG.layers} layers, 4 heads of 64, {TOKENS} tokens a chunk, {HISTORY} before it, {cores} cores\n")
    alone, parts, times = measured[1], [], []
    per_flop = alone["own"] / load(CONFIG, FORWARD, 1).flops
    for size, of in measured.items():
        ratios = [f"{of[part] / alone[of_alone]:.2f}" for part, of_alone in PARTS.items()]
        sizes = [f"{of['kv'] / alone['kv']:.3f}", f"{of['sent'] / 2**20:.2f}"]
        parts.append([str(size), f"{of['step'] * 1e3:.0f}", *ratios, *sizes])
        if 1 < size <= cores:
            times.append([str(size), *compared(size, of, alone, per_flop)])
    heads = ["ranks", "step, ms", "of one rank's", "own work, CPU", "waiting", "exchange", "K/V a rank", "sent, MiB"]
    print(markdown(heads, parts))
    heads = ["ranks", "link, GB/s", "a collective, ms", "own work, ms", "predicted", "exchange, ms", "predicted"]
    print("\n" + markdown([*heads, "efficiency", "but for waiting", "predicted"], times))


def compared(size: int, of: dict[str, float], alone: dict[str, float], per_flop: float) -> list[str]:
    """Measured and predicted, side by side. Efficiency in wall time, and but for waiting and for other programs."""
    found, link = load(CONFIG, FORWARD, size, item=4), Link(of["speed"], of["latency"])
    own, exchange = found.flops * per_flop, link.seconds(found.sent, found.collectives)
    shares = [alone["step"] / of["step"], *(alone["own"] / x for x in (of["own"] + of["exchange"], own + exchange))]
    milliseconds = (f"{x * 1e3:.1f}" for x in (link.latency, of["own"], own, of["exchange"], exchange))
    return [f"{link.speed / 1e9:.2f}", *milliseconds, *(f"{share / size:.2f}" for share in shares)]


if __name__ == "__main__":
    main()
