"""What weights take of a node: reads from its disk, pages of the checkpoint, private copies; whole and sharded.

python -m benchmarks.weights writes a random transformer in float32, which ranks on one node then load and run.
"""

import argparse
import ctypes
import gc
import os
import re
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file

from benchmarks.memory import extra_memory
from flowcache.bench.statistics import markdown
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.models.attention import attention
from flowcache.models.part import Part
from flowcache.models.tensors import in_folder
from flowcache.parallel.mesh import Mesh
from flowcache.parallel.sharding import load_sharded

CONFIG = SkyReelsConfig(1024, 4096, 8, 4, in_channels=4, out_channels=4, text_dim=64, text_len=8, freq_dim=64)
MIB = 2**20


def part(folder: str) -> Part:
    with torch.device("meta"):
        module = SkyReelsTransformer(CONFIG)
    return Part(Path(folder), module, in_folder(Path(folder)))


@torch.inference_mode()
def forward(model: SkyReelsTransformer) -> None:
    """One chunk of 16 tokens, so that weights are what counts."""
    latents = torch.zeros(1, 4, 1, 8, 8)
    grid = model.grid(latents)
    conditioning, text = model.condition(torch.zeros(1, 1), grid, 24), model.text(torch.zeros(1, 8, 64))
    ropes, attend = [model.rope(grid)], lambda layer, q, k, v: attention(q, k, v)
    out = model.transform(model.embed(latents), conditioning, [text], ropes, attend)
    model.project(out, conditioning, grid)


def memory(file: Path) -> dict[str, int]:
    """Of this process, bytes: its share of the file's pages that are in memory, and memory that is no file's."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
    mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)[1:]

    def total(name: str, of_file: bool) -> int:
        chosen = (mapping for mapping in mappings if (str(file) in mapping.splitlines()[0]) is of_file)
        return sum(1024 * int(re.search(rf"^{name}:\s+(\d+)", mapping, re.MULTILINE)[1]) for mapping in chosen)

    return {"pages": total("Pss", True), "private": total("Anonymous", False)}


def from_disk() -> int:
    """Bytes that this process made the system read from the disk, by calls or by touching mapped pages."""
    return int(re.search(r"^read_bytes: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)[1])


def drop(file: Path) -> None:
    """From the page cache."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rank_main(rank: int, size: int, folder: str, sharded: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group{size}{sharded}", rank=rank, world_size=size)
    file, load = Path(folder, "model.safetensors"), Part.load
    if sharded:
        load = partial(load_sharded, ranks=Mesh(dist.group.WORLD))
    forward(SkyReelsTransformer(replace(CONFIG, dim=16, ffn_dim=16)))  # what the libraries take for themselves
    dist.barrier()
    private, disk = memory(file)["private"], from_disk()
    model = load(part(folder), "cpu", torch.float32, lambda name: False)
    forward(model)
    disk = from_disk() - disk
    gc.collect()
    dist.barrier()  # all ranks hold what they hold
    found = memory(file)
    found |= {"private": found["private"] - private, "disk": disk}
    dist.barrier()
    torch.save(found | {"forward": extra_memory(lambda: forward(model))}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def gang(size: int, folder: str, sharded: bool) -> list[dict[str, int]]:
    drop(Path(folder, "model.safetensors"))
    mp.start_processes(rank_main, args=(size, folder, sharded), nprocs=size, start_method="spawn")
    return [torch.load(f"{folder}/{rank}.pt") for rank in range(size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    sizes = parser.parse_args().ranks
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        save_file(SkyReelsTransformer(CONFIG).state_dict(), f"{folder}/model.safetensors")
        total = Path(folder, "model.safetensors").stat().st_size
        measured = {(size, sharded): gang(size, folder, sharded) for sharded in (False, True) for size in sizes
                    if size > sharded}  # fmt: skip
    rows = []
    for (size, sharded), ranks in measured.items():
        disk, pages = (sum(rank[name] for rank in ranks) / total for name in ("disk", "pages"))
        private, more = (max(rank[name] for rank in ranks) / MIB for name in ("private", "forward"))
        rows.append(["sharded" if sharded else "whole", str(size), f"{disk:.3f}", f"{pages:.3f}", f"{private:.0f}",
                     f"{more:.0f}"])  # fmt: skip
    print(f"{total / MIB:.0f} MiB of weights in {CONFIG.layers} blocks and what lies around them; of the file:\n")
    heads = ["weights", "ranks", "read from disk by all", "in memory for all", "private, MiB a rank",
             "more in a forward, MiB a rank"]  # fmt: skip
    print(markdown(heads, rows))


if __name__ == "__main__":
    main()
