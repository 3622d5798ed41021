"""What a chunk takes on one H100, predicted without one: python -m benchmarks.roofline

The real denoise loop, K/V store and decoders at true sizes in bf16, on a pretended GPU (benchmarks/pretend.py): every
kernel takes as long as its operations or its bytes do, one after the other, and the host is never in the way. All
blocks are alike, so 2 and 3 of them are run and the rest is counted on. A forward is the mean of a whole window in
which every step is computed, its part of texts, embeddings, head and solver included. Forwards that nothing sees are
not run; they are cheap ones, so the mean of the others is higher: "an official one" shares the window out among all.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from benchmarks.pretend import DEVICE, Kind, Tally, filled, pretend_gpu
from flowcache.bench.statistics import markdown
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatVelocity
from flowcache.families.known import family_of
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.magi.vae import ViTVAE
from flowcache.families.magi.vae_codec import MagiCodec
from flowcache.families.magi.vae_config import ViTVAEConfig
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.models.base import Codec
from flowcache.models.wan_vae import WanCodec
from flowcache.sampling.loop import Texts, denoise

GIB = 2**30
Config = SkyReelsConfig | MagiConfig
DEPTHS = 2, 3  # blocks that are run; a first one alone takes less memory than a later one

# Operations a second, as cuBLAS, cuDNN and FlashAttention 2 are measured to reach at such sizes; bytes of HBM3.
FLOPS: Mapping[Kind, float] = {
    ("matmul", "bfloat16"): 650e12,
    ("matmul", "float32"): 50e12,  # torch takes no TF32 for products unless it is told to
    ("convolution", "bfloat16"): 650e12,
    ("convolution", "float32"): 350e12,  # torch takes TF32 for convolutions
    ("attention", "bfloat16"): 600e12,
    ("attention", "float32"): 50e12,
}
FLASH = {("attention", "bfloat16"): 380e12}
BANDWIDTH = 2.6e12
ASSUMED = (
    "One H100 SXM: products 650 TFLOP/s in bf16, 50 in fp32; attention 600 with cuDNN, 380 with FlashAttention 2; "
    "convolutions 650 in bf16, 350 in fp32 (TF32, torch's default for them); memory 2.6 TB/s."
)


@dataclass(frozen=True)
class Case:
    """A published model at one size. chunks: of a window; frames, rows, columns: of a chunk, in latent pixels."""

    name: str
    config: Config
    chunks: int
    frames: int
    rows: int
    columns: int

    @property
    def magi(self) -> bool:
        return isinstance(self.config, MagiConfig)


def skyreels(name: str, config: SkyReelsConfig, size: str) -> Case:
    chunks, rows, columns = {"540P": (5, 68, 120), "720P": (6, 90, 160)}[size]
    return Case(f"SkyReels-V2 {name} {size}", config, chunks, 5, rows, columns)


SMALL, LARGE = SkyReelsConfig(1536, 8960, 12, 30), SkyReelsConfig(5120, 13824, 40, 40)
GATED = MagiConfig(6144, 16384, 48, 8, 128, 48, condition_dim=1536, gated=True, half_channel=True, rescale=0.1)
CASES = {
    "1.3B": skyreels("1.3B", SMALL, "540P"),
    "14B": skyreels("14B", LARGE, "540P"),
    "1.3B 720P": skyreels("1.3B", SMALL, "720P"),
    "14B 720P": skyreels("14B", LARGE, "720P"),
    "4.5B": Case("MAGI-1 4.5B 720x720", MagiConfig(3072, 12288, 24, 8, 128, 34), 10, 6, 90, 90),
    "24B": Case("MAGI-1 24B 1280x720", GATED, 10, 6, 90, 160),
}
COMPUTED = {  # every step computed, K/V of clean chunks kept
    False: Policy("flowcache", kv_update="refresh"),
    True: Policy("flowcache", kv_update="refresh", cache=CacheOf(RepeatVelocity)),
}
OFF = {False: Policy("off"), True: Policy("off", kv_update="refresh")}
DENSE = Policy("dense", attention="full")
ALL_REUSED = Reuse(float("inf"), 1, (0.0,))  # but for first and last steps


def settings_of(case: Case, steps: int = 4) -> Any:
    """Few steps, and as many chunks under way as with all of them."""
    if case.magi:
        return MagiSettings(steps, steps // 4, case.frames, 24, 7.5, Pipeline())
    return SamplerSettings(steps, shift=8.0, guidance=6.0, ar_step=1, chunk=case.frames, fps=24)


def window(case: Case, policy: Policy, depth: int, steps: int = 4, given: int = 0) -> tuple[Tally, int]:
    """Denoise one window with a model of so many blocks; what it took, and how many forwards ran."""
    config, texts = replace(case.config, layers=depth), [torch.empty(1, 512, 4096) for _ in range(2)]
    if case.magi:
        texts = [torch.empty(1, 128, 4096), None]
    owner, forwards = family_of(config), 0
    with torch.device("meta"):
        module = owner.build(config)
    noise = torch.zeros(16, case.chunks * case.frames, case.rows, case.columns)
    prefix = torch.zeros(16, given, case.rows, case.columns) if given else None

    def count(visit: Any) -> None:
        nonlocal forwards
        forwards += visit.decision.compute

    with pretend_gpu() as tally:
        model = filled(module, torch.bfloat16, owner.keep_float32)
        for _ in denoise(
            model, noise, Texts(*texts), settings_of(case, steps), policy, prefix, lambda row: prefix, count
        ):
            pass
    return tally, forwards


def asked(case: Case, policy: Policy, steps: int = 4) -> int:
    """Forwards of the same window as the official program has them: those, too, that nothing sees."""
    plan = settings_of(case, steps).plan(case.chunks * case.frames, policy, 0)
    return sum(len(row.forwards) for row in plan.rows)


def simulate(case: Case, policy: Policy, steps: int = 4, given: int = 0) -> tuple[Tally, int]:
    """The same at the model's true depth."""
    runs = [window(case, policy, depth, steps, given) for depth in DEPTHS]
    (less, _), (more, forwards) = runs
    further = case.config.layers - DEPTHS[1]
    return Tally(
        kernels={kind: continued(less.kernels.get(kind, Counter()), sizes, further)
                 for kind, sizes in more.kernels.items()},
        waits=more.waits,
        mixed=more.mixed,
        peak=more.peak + further * (more.peak - less.peak),
    ), forwards  # fmt: skip


def continued(less: Counter, more: Counter, further: int) -> Counter:
    return Counter({key: more[key] + further * (more[key] - less[key]) for key in more})


def seconds(tally: Tally, kinds: Callable[[Kind], bool] = lambda kind: True, rates: Mapping[Kind, float] = {}) -> float:
    """Of all kernels of these kinds, one after the other."""
    rates = FLOPS | rates
    return sum(
        count * max(flops / rates[kind] if flops else 0, moved / BANDWIDTH)
        for kind, sizes in tally.kernels.items() if kinds(kind)
        for (flops, moved), count in sizes.items()
    )  # fmt: skip


@dataclass(frozen=True)
class Forward:
    """Milliseconds of a chunk's forward: of bf16 products, fp32 products, attention (cuDNN), all other kernels."""

    bf16: float
    fp32: float
    attention: float
    rest: float
    flash: float  # what attention takes with FlashAttention 2

    @property
    def total(self) -> float:
        return self.bf16 + self.fp32 + self.attention + self.rest


def forward(tally: Tally, forwards: int) -> Forward:
    def of(kinds: Callable[[Kind], bool], rates: Mapping[Kind, float] = {}) -> float:
        return 1e3 * seconds(tally, kinds, rates) / forwards

    return Forward(
        bf16=of(lambda kind: kind[0] in ("matmul", "convolution") and kind[1] == "bfloat16"),
        fp32=of(lambda kind: kind[0] in ("matmul", "convolution") and kind[1] != "bfloat16"),
        attention=of(lambda kind: "attention" in kind[0]),
        rest=of(lambda kind: kind[0] == "rest"),
        flash=of(lambda kind: "attention" in kind[0], FLASH),
    )


def wan_codec(dtype: torch.dtype = torch.float32) -> Codec:
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        module = AutoencoderKLWan()
    return WanCodec(filled(module, dtype))


def magi_codec(dtype: torch.dtype = torch.bfloat16) -> Codec:
    with torch.device("meta"):
        module = ViTVAE(ViTVAEConfig())
    return MagiCodec(filled(module, dtype))


def decoding(make: Callable[[], Codec], frames: int, rows: int, columns: int) -> tuple[Tally, int]:
    """The second chunk of a video; and the bytes that were held at most, the weights included."""
    with pretend_gpu() as tally, torch.inference_mode():
        decode, highest = make().stream(), 0
        for _ in range(2):
            tally.clear()
            decode(torch.zeros(16, frames, rows, columns, device=DEVICE))
            highest = max(highest, tally.peak)
    return tally, highest


HALF_WAN = partial(wan_codec, torch.bfloat16)
DECODERS = {
    "Wan VAE 540P": partial(decoding, wan_codec, 5, 68, 120),
    "Wan VAE 540P in bf16": partial(decoding, HALF_WAN, 5, 68, 120),
    "Wan VAE 720P": partial(decoding, wan_codec, 5, 90, 160),
    "Wan VAE 720P in bf16": partial(decoding, HALF_WAN, 5, 90, 160),
    "MAGI-1 VAE 720x720": partial(decoding, magi_codec, 6, 90, 90),
    "MAGI-1 VAE 1280x720": partial(decoding, magi_codec, 6, 90, 160),
}


def forwards_table(names: list[str]) -> str:
    rows = []
    for case in (CASES[name] for name in names):
        tally, forwards = simulate(case, COMPUTED[case.magi])
        took, official = forward(tally, forwards), asked(case, COMPUTED[case.magi])
        times = took.bf16, took.fp32, took.attention, took.rest, took.total, took.total - took.attention + took.flash
        run = [f"{forwards} of {official}", f"{took.total * forwards / official:,.0f}"]
        waits, mixed = tally.waits.total() / forwards, tally.mixed.total()
        rest = [f"{tally.peak / GIB:.1f}", f"{waits:.2f}", str(mixed)]
        rows.append([case.name, *(f"{x:,.0f}" for x in times), *run, *rest])
    parts = ["bf16 products", "fp32 products", "attention", "rest", "a forward, ms", "with FA2"]
    run = ["run, of the official ones", "an official one, ms"]
    return markdown(["model", *parts, *run, "peak, GiB", "host waits a forward", "mixed"], rows)


def memory_table(names: list[str]) -> str:
    """Of windows with all chunks under way that may be so at once."""
    rows = []
    for case in (CASES[name] for name in names):
        computed = COMPUTED[case.magi]
        runs = {"off": (OFF[case.magi], 0), "flowcache, all reused": (replace(computed, reuse=ALL_REUSED), 0)}
        if not case.magi:
            runs |= {"dense": (DENSE, 0), "flowcache, from a picture": (computed, 1)}
        for name, (policy, given) in runs.items():
            peak = simulate(case, policy, 4 if case.magi else case.chunks, given)[0].peak
            rows.append([case.name, name, f"{peak / GIB:.1f}"])
    return markdown(["model", "policy", "peak, GiB"], rows)


def decoders_table() -> str:
    rows = []
    for name, decode in DECODERS.items():
        tally, peak = decode()
        rows.append([name, f"{1e3 * seconds(tally):,.0f}", f"{peak / GIB:.1f}", str(tally.waits.total())])
    return markdown(["decoder", "a chunk, ms", "peak, GiB", "host waits"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--memory", action="store_true", help="peaks of other policies, too: minutes for each model")
    parser.add_argument("--waits", action="store_true", help="where the host waits, too")
    arguments = parser.parse_args()
    print(ASSUMED, "\n")
    print(forwards_table(arguments.models), "\n")
    print(decoders_table(), "\n")
    if arguments.memory:
        print(memory_table(arguments.models))
    if arguments.waits:
        for name in arguments.models:
            tally, forwards = window(CASES[name], COMPUTED[CASES[name].magi], 2)
            print(f"\n{CASES[name].name}, {forwards} forwards:")
            for (what, where), count in (tally.waits + tally.mixed).most_common():
                print(f"{count:6} {what}: {where}")


if __name__ == "__main__":
    main()
