"""What ranks gain in decoding: a chunk's time by gangs of 1 to 4, as ratios from one run, predicted and measured.

python -m benchmarks.decode streams chunks through small random VAEs of both families in tiles, over gloo, one thread a
rank; of all repeats the quickest counts. Predicted: the largest rank's part of the pixels of all tiles, which is what
its own work should be of one rank's. Gangs larger than the machine's cores take turns on them: read their own work (CPU
time), not their times.
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from flowcache.bench.statistics import markdown
from flowcache.families.magi.vae import ViTVAE
from flowcache.families.magi.vae_codec import MagiCodec
from flowcache.families.magi.vae_config import ViTVAEConfig
from flowcache.models.base import Codec, Job, Share, alone
from flowcache.models.wan_vae import WanCodec
from flowcache.parallel.decoding import SHOWS, deal, open_sharing

ROWS, COLUMNS = 22, 29  # latent pixels: 176 x 232 video pixels
CHUNK = {"SkyReels-V2": 1, "MAGI-1": 6}  # latent frames


def codec_of(family: str) -> Codec:
    """12 tiles a chunk of SkyReels-V2, 40 of MAGI-1."""
    torch.manual_seed(0)
    if family == "MAGI-1":
        vae = ViTVAE(ViTVAEConfig(embed_dim=256, depth=3, num_heads=4, video_size=64))
        return MagiCodec(vae.eval().requires_grad_(False))
    from diffusers import AutoencoderKLWan

    return WanCodec(AutoencoderKLWan(base_dim=12).eval().requires_grad_(False), tile=64)


@dataclass
class Watched:
    """A share that notes this rank's CPU seconds of each call, and what the tiles are."""

    share: Share
    seconds: list[float] = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)

    def __call__(self, jobs: Sequence[Job], shapes: Sequence[tuple[int, ...]]) -> list[Tensor] | None:
        began = time.thread_time()
        results = self.share(jobs, shapes)
        self.seconds.append(time.thread_time() - began)
        self.pixels = [math.prod(shape) for shape in shapes]
        return results


def measure(share: Share, repeats: int) -> dict[str, dict]:
    """By family: the least wall and CPU seconds of `repeats` chunks, after a first; and the tiles' sizes."""
    measured = {}
    for family, frames in CHUNK.items():
        watched = Watched(share)
        decode, latents = codec_of(family).stream(watched), torch.randn(16, frames, ROWS, COLUMNS)
        walls = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            decode(latents)
            walls.append(time.perf_counter() - began)
        measured[family] = {"wall": min(walls[1:]), "own": min(watched.seconds[1:]), "pixels": watched.pixels}
    return measured


def rank_main(rank: int, size: int, folder: str, repeats: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    torch.save(measure(open_sharing(timedelta(minutes=5)), repeats), f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def gang(size: int, repeats: int) -> list[dict[str, dict]]:
    """Every rank's measurements in a gang of `size` processes."""
    if size == 1:
        return [measure(alone, repeats)]
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(rank_main, args=(size, folder, repeats), nprocs=size, start_method="spawn")
        return [torch.load(Path(folder) / f"rank{rank}.pt", weights_only=True) for rank in range(size)]


def row(family: str, ranks: list[dict[str, dict]], one: dict) -> list[str]:
    """Of a gang, beside one rank's measurements."""
    size, pixels = len(ranks), one["pixels"]
    owners = deal(pixels, size)
    shares = [sum(p for p, owner in zip(pixels, owners, strict=True) if owner == rank) for rank in range(size)]
    wall, own = ranks[SHOWS][family]["wall"], max(rank[family]["own"] for rank in ranks)
    sent = 4 * (sum(shares) - shares[SHOWS]) / 2**20
    numbers = max(shares) / sum(shares), own / one["own"], wall / one["wall"]
    return [family, str(size), str(len(pixels)), f"{wall * 1e3:.0f}", *(f"{x:.2f}" for x in numbers), f"{sent:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = {size: gang(size, arguments.repeats) for size in sorted({1, *arguments.ranks})}
    (one,) = measured[1]
    print(f"chunks of {ROWS} x {COLUMNS} latent pixels, {os.cpu_count()} cores\n")
    heads = ["VAE", "ranks", "tiles", "chunk, ms", "predicted work", "own work", "time of one rank's", "sent, MiB"]
    print(markdown(heads, [row(family, ranks, one[family]) for family in CHUNK for ranks in measured.values()]))


if __name__ == "__main__":
    main()
