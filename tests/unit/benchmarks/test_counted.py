"""What the pretended GPU counts, counted again: by torch's own counter on a CPU, and by hand at true sizes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.pretend import Kind, Tally
from benchmarks.roofline import CASES, COMPUTED, GATED, Case, settings_of, window
from flowcache.families.known import family_of
from flowcache.families.magi.config import MagiConfig
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.sampling.dry_run import WindowWork, dry_run
from flowcache.sampling.loop import Texts, denoise

TEXT, CAPTION, NULL = 512, 128, 50  # tokens of the texts of `roofline.window`, and of no caption
SMALL = {
    "skyreels": SkyReelsConfig(64, 96, 4, 2, text_dim=4096),
    "magi": MagiConfig(64, 96, 8, 4, 16, 2, condition_dim=16),
    "magi, gated": replace(GATED, dim=64, ffn_dim=96, heads=8, kv_heads=4, head_dim=16, layers=2, condition_dim=16),
}


def flops(tally: Tally, kinds: Callable[[Kind], bool] = lambda kind: True) -> int:
    return sum(
        each * count
        for kind, sizes in tally.kernels.items() if kinds(kind)
        for (each, _), count in sizes.items()
    )  # fmt: skip


def moved(tally: Tally, kind: str) -> int:
    return sum(
        each * count
        for (name, _), sizes in tally.kernels.items() if name == kind
        for (_, each), count in sizes.items()
    )  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_a_cpu_with_torchs_counter_does_as_many_operations(name):
    case = Case(name, SMALL[name], chunks=3, frames=2, rows=8, columns=12)
    tally, _ = window(case, COMPUTED[case.magi], depth=2)
    model = family_of(case.config).build(case.config).requires_grad_(False).eval()
    texts = [torch.zeros(1, 128, 4096), None] if case.magi else [torch.zeros(1, 512, 4096) for _ in range(2)]
    noise, counter = torch.randn(16, 6, 8, 12), FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        list(denoise(model, noise, Texts(*texts), settings_of(case), COMPUTED[case.magi]))
    assert flops(tally) == pytest.approx(counter.get_total_flops(), rel=0.02)


def block(case: Case) -> tuple[Tally, WindowWork]:
    """What a single block takes in a window, and how many forwards and keys that is."""
    (less, _), (more, forwards) = (window(case, COMPUTED[case.magi], depth) for depth in (1, 2))
    kernels = {
        kind: {size: count - less.kernels.get(kind, {}).get(size, 0) for size, count in sizes.items()}
        for kind, sizes in more.kernels.items()
    }
    patch = case.config.patch
    done = dry_run(settings_of(case), (case.chunks * case.frames, case.rows, case.columns), patch, COMPUTED[case.magi])
    assert done.forwards == forwards
    return Tally(kernels), done


@pytest.mark.long
@pytest.mark.parametrize("name", ["1.3B", "14B"])
def test_a_block_of_skyreels_by_hand(name):
    """Of a window of two chunks in four steps, with guidance."""
    case = replace(CASES[name], chunks=2)
    tally, done = block(case)
    width, inner, tokens = case.config.dim, case.config.ffn_dim, 5 * 34 * 60
    forwards = 2 * (2 * 4 + 1)  # the first chunk once more when it is clean
    pairs = 2 * tokens**2 * (5 * 1 + 4 * 2)
    assert (done.forwards, done.seen * tokens) == (forwards, pairs)
    a_token = 12 * width**2 + 4 * width * inner  # q, k, v, o, cross-attention's q and o; up and down
    texts = 2 * TEXT * 4 * width**2  # keys and values of both
    products = forwards * tokens * a_token + texts
    assert flops(tally, lambda kind: kind[0] == "matmul") == pytest.approx(products, rel=0.01)
    attention = 4 * width * (pairs + forwards * tokens * TEXT)
    assert flops(tally, lambda kind: kind[0] == "attention") == pytest.approx(attention, rel=0.01)
    # Bytes: products take and give tokens, and each reads its weights once for both guidance branches or for each.
    once = tokens * (6 * 2 * width + 2 * (width + inner)) * 2
    weights = (6 * width**2 + 2 * width * inner) * 2
    low, high = (forwards * once + runs * weights for runs in (forwards // 2, forwards))
    assert 0.98 * low < moved(tally, "matmul") < 1.02 * high
    # All else, in units of a bf16 number of all tokens: a float32 one is two.
    units = 2 + 2  # norm1; modulated
    units += 2 * (1 + 3 + 4 + 3)  # q and k: length, weighted in fp32, turned, rounded
    units += 4  # k and v into the cache
    units += 4 + 4 + 3 + 2  # residual in fp32; norm3, rounded; norm of cross-attention's q
    units += 5 + 4 + 3 + 4  # residual; norm2; modulated; residual, rounded
    assert moved(tally, "rest") == pytest.approx(forwards * units * tokens * width * 2, rel=0.03)


@pytest.mark.long
@pytest.mark.parametrize("name", ["4.5B", pytest.param("24B", marks=pytest.mark.slow)])
def test_a_block_of_magi_by_hand(name):
    """Of a window of two chunks in four steps; three passes, of which one has the caption."""
    case = replace(CASES[name], chunks=2)
    tally, done = block(case)
    config, tokens = case.config, 6 * 45 * (case.columns // 2)
    width, kv = config.heads * 128, config.kv_heads * 128
    inner = config.ffn_dim * (3 if config.gated else 2)
    a_token = 2 * config.dim * (2 * width + 2 * kv + 2 * width + inner)  # q, qx; k, v; both outputs; feed-forward
    texts = 2 * (CAPTION + NULL) * config.dim * 2 * kv
    products = done.forwards * tokens * a_token + texts
    assert flops(tally, lambda kind: kind[0] == "matmul") == pytest.approx(products, rel=0.01)
    least, most = (4 * width * tokens * (done.seen + done.forwards * text) for text in (NULL, CAPTION))
    found = flops(tally, lambda kind: "attention" in kind[0])
    assert 0.995 * least < found < 1.005 * most
