"""K/V memory and time of one long window: budgets against the preallocated full history, from one run.

python -m benchmarks.kv_memory denoises windows of 5, 20 and 80 chunks with a small random transformer, all kinds of
`kv` in turn, each in a process of its own, so that its peak memory is its own, too.
"""

import argparse
import multiprocessing
import resource
import time
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.statistics import markdown
from flowcache.cache.reuse import Policy, resolve_policy
from flowcache.models.skyreels.config import SkyReelsConfig
from flowcache.models.skyreels.transformer import SkyReelsTransformer
from flowcache.records import ModelSpec
from flowcache.sampling.denoise import SamplerSettings, Texts, denoise

KEPT: dict[str, dict[str, Any]] = {
    "full history": {"keep": "all"},
    "recent, 2 chunks": {"keep": "recent", "chunks": 2},
    "sink, 1 + 1 chunks": {"keep": "sink", "first": 1, "chunks": 1},
    "compressed to 2 chunks by token": {"keep": "compressed", "chunks": 2, "by": "token"},
    "compressed to 2 chunks by frame": {"keep": "compressed", "chunks": 2, "by": "frame"},
    "compressed to 1 chunk by chunk": {"keep": "compressed", "chunks": 1, "by": "chunk"},
}
CHUNK, SIDE = 3, 16  # latent frames; latent pixels
SETTINGS = SamplerSettings(steps=4, shift=3.0, guidance=1.0, ar_step=2, chunk=CHUNK, fps=24)


@dataclass(frozen=True)
class Measured:
    """kv: bytes of K/V storage; grown: bytes by which the process's peak memory grew; seconds of CPU time."""

    kv: int
    grown: int
    seconds: float


def policy_of(kv: dict[str, Any]) -> Policy:
    spec = ModelSpec("small", "skyreels", "", "", chunk=CHUNK, window=CHUNK, overlap=CHUNK, channels=4)
    return resolve_policy({"name": "flowcache", "reuse": False, "kv": kv}, spec)


def measure(chunks: int, kv: dict[str, Any]) -> Measured:
    """Denoise one window of so many chunks."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = SkyReelsConfig(128, 256, 4, 4, in_channels=4, out_channels=4, text_dim=16, text_len=8, freq_dim=32)
    model = SkyReelsTransformer(config).requires_grad_(False)
    texts = Texts(torch.randn(1, 8, 16))
    run(model, 1, texts, policy_of({"keep": "all"}))  # what the first call of anything takes
    before, began = peak(), time.process_time()
    bytes_of_kv = run(model, chunks, texts, policy_of(kv))
    return Measured(bytes_of_kv, peak() - before, time.process_time() - began)


def run(model: SkyReelsTransformer, chunks: int, texts: Texts, policy: Policy) -> int:
    noise = torch.randn(4, chunks * CHUNK, SIDE, SIDE)
    return max(chunk.kv_bytes for chunk in denoise(model, noise, texts, SETTINGS, policy))


def peak() -> int:
    """Highest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=[5, 20, 80])
    arguments = parser.parse_args()
    context, rows = multiprocessing.get_context("spawn"), []
    full: dict[int, Measured] = {}
    for name, kv in KEPT.items():
        for chunks in arguments.chunks:
            with context.Pool(1) as pool:
                found = pool.apply(measure, (chunks, kv))
            against = full.setdefault(chunks, found)
            ratios = (found.kv / against.kv, found.seconds / against.seconds)
            rows.append([
                name, str(chunks), f"{found.kv / 2**20:.2f}", f"{ratios[0]:.3f}", f"{found.grown / 2**20:.1f}",
                f"{found.seconds:.2f}", f"{ratios[1]:.2f}",
            ])  # fmt: skip
    tokens = CHUNK * (SIDE // 2) ** 2
    print(f"4 layers, 4 heads of 32, fp32, {tokens} tokens a chunk, {SETTINGS.steps} steps, 1 thread\n")
    head = ["kept", "chunks", "K/V, MiB", "of full", "peak grew by, MiB", "CPU seconds", "of full"]
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
