"""The pretended GPU counts what a real one would do."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.pretend import DEVICE, filled, pretend_gpu
from benchmarks.roofline import CASES, COMPUTED, simulate, window
from flowcache.families.skyreels.config import SkyReelsConfig


def test_products_attention_and_all_else_are_counted_with_their_bytes():
    with torch.device("meta"):
        layer = nn.Linear(8, 16, bias=False)
    with pretend_gpu() as tally, torch.inference_mode():
        layer = filled(layer, torch.bfloat16)
        x = torch.empty(2, 5, 8, dtype=torch.bfloat16, device=DEVICE)
        y = layer(x)
        q = y.view(2, 5, 2, 8).transpose(1, 2)
        F.scaled_dot_product_attention(q, q, q)
        (y.view(10, 16) + torch.empty(16, device=DEVICE)).mul_(2)
    assert tally.kernels == {
        ("matmul", "bfloat16"): Counter({(2 * 10 * 8 * 16, 2 * (10 * 8 + 8 * 16 + 10 * 16)): 1}),
        ("attention", "bfloat16"): Counter({(4 * 2 * 2 * 5 * 5 * 8, 2 * 2 * 160): 1}),  # q, k and v are one tensor here
        ("rest", "float32"): Counter({(0, 160 * 2 + 16 * 4 + 160 * 4): 1, (0, 2 * 160 * 4): 1}),
    }
    assert not tally.waits and not tally.mixed


def test_memory_is_that_of_storages_that_live():
    with pretend_gpu() as tally:
        x = torch.empty(1000, device=DEVICE)
        view = x[10:].view(-1)
        del x
        y = view * 2
        assert (tally.held, tally.peak) == (4000 + 3960, 4000 + 3960)
        del view, y
        assert tally.held == 0
        tally.clear()
        assert tally.peak == 0


@pytest.mark.parametrize(
    ("what", "act"),
    [
        ("value read", lambda x: x.sum().item()),
        ("value read", lambda x: (x * 2).tolist()),
        ("value read", lambda x: bool(x.isfinite().all())),
        ("copied to the host", lambda x: x.cpu()),
        ("copied from the host", lambda x: torch.ones(3).to(x)),
        ("size depends on values", lambda x: x.__setitem__(torch.ones(4, dtype=torch.bool), 0)),
    ],
)
def test_what_makes_the_host_wait(what, act):
    with pretend_gpu() as tally:
        act(torch.empty(4, device=DEVICE))
    assert tally.waits == {(what, "outside"): 1}


def test_no_wait_for_pinned_copies_and_fixed_indices():
    with pretend_gpu() as tally:
        x, place = torch.empty(4, device=DEVICE), torch.ones(3).to(DEVICE, non_blocking=True)
        torch.where(x > 0, x, x)[1:].unsqueeze(0).add_(place)
    assert not tally.waits


def test_a_kernel_that_takes_tensors_of_both_devices_is_seen():
    with pretend_gpu() as tally:
        torch.empty(4, device=DEVICE)[torch.tensor([1, 2])]
    assert tally.mixed == {("aten.index", "outside"): 1}


def test_a_model_of_more_layers_is_counted_on_exactly():
    small = replace(CASES["1.3B"], chunks=2, config=SkyReelsConfig(64, 96, 4, 5))
    counted, forwards = simulate(small, COMPUTED[False], 2)
    true, again = window(small, COMPUTED[False], 5, 2)
    assert (counted.kernels, counted.peak, counted.waits, forwards) == (true.kernels, true.peak, true.waits, again)
    assert true.waits and {where.split(":")[0] for _, where in true.waits} >= {"sampling/latents.py"}
