"""K/V memory and time of one long window: budgets against the preallocated full history, from one run.

python -m benchmarks.kv_memory denoises windows of 5, 20 and 80 chunks with a small random transformer, all kinds of
`kv` in turn. "peak" is all that a call holds at once: K/V, latents, activations, what choosing tokens takes.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.memory import extra_memory, seconds
from flowcache.bench.statistics import markdown
from flowcache.cache.policy import Policy
from flowcache.families.settings import resolve_policy
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.records import ModelSpec
from flowcache.sampling.loop import Texts, denoise

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
    """kv: bytes of K/V storage; peak: of all that is held at once; seconds of CPU time."""

    kv: int
    peak: int
    seconds: float


def policy_of(kv: dict[str, Any]) -> Policy:
    spec = ModelSpec("small", "skyreels", "", "", chunk=CHUNK, window=CHUNK, overlap=CHUNK, channels=4)
    return resolve_policy({"name": "flowcache", "reuse": False, "kv": kv}, spec)


def small_model() -> SkyReelsTransformer:
    torch.manual_seed(0)
    config = SkyReelsConfig(128, 256, 4, 4, in_channels=4, out_channels=4, text_dim=16, text_len=8, freq_dim=32)
    return SkyReelsTransformer(config).requires_grad_(False)


def measure(model: SkyReelsTransformer, chunks: int, kv: dict[str, Any]) -> Measured:
    """Denoise one window of so many chunks: once for the time, once for the memory."""
    call = partial(run, model, chunks, policy_of(kv))
    return Measured(call(), extra_memory(call), seconds(call))


def run(model: SkyReelsTransformer, chunks: int, policy: Policy) -> int:
    """Bytes of K/V storage."""
    noise, texts = torch.randn(4, chunks * CHUNK, SIDE, SIDE), Texts(torch.randn(1, 8, 16))
    return max(chunk.kv_bytes for chunk in denoise(model, noise, texts, SETTINGS, policy))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=[5, 20, 80])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, rows = small_model(), []
    full: dict[int, Measured] = {}
    for name, kv in KEPT.items():
        for chunks in arguments.chunks:
            found = measure(model, chunks, kv)
            of = full.setdefault(chunks, found)
            stored = [f"{found.kv / 2**20:.2f}", f"{found.kv / of.kv:.3f}"]
            peak = [f"{found.peak / 2**20:.2f}", f"{found.peak / of.peak:.3f}"]
            rows.append(
                [name, str(chunks), *stored, *peak, f"{found.seconds:.2f}", f"{found.seconds / of.seconds:.2f}"]
            )
    tokens = CHUNK * (SIDE // 2) ** 2
    print(f"4 layers, 4 heads of 32, fp32, {tokens} tokens a chunk, {SETTINGS.steps} steps, 1 thread\n")
    head = ["kept", "chunks", "K/V, MiB", "of full", "peak, MiB", "of full", "CPU seconds", "of full"]
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
