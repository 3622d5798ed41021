"""`off` forwards everything anew, so its guidance branches take turns in one memory for K/V."""

from dataclasses import replace

import pytest
import torch

from flowcache.cache.policy import Policy
from flowcache.families.skyreels import sampler
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.sampling.loop import Texts, denoise

SETTINGS = SamplerSettings(4, shift=3.0, guidance=4.0, ar_step=1, chunk=2, fps=24)
OFF = Policy("off")


@torch.inference_mode()
def window(given):
    torch.manual_seed(0)
    model = SkyReelsTransformer(SkyReelsConfig(48, 96, 2, 2, in_channels=4, out_channels=4, text_dim=8, freq_dim=16))
    prefix, texts = torch.randn(4, given, 4, 6), Texts(torch.randn(1, 5, 8), torch.randn(1, 7, 8))
    noise, visits = torch.randn(4, 8, 4, 6), []
    seen = prefix if given else None
    found = list(denoise(model, noise, texts, SETTINGS, OFF, seen, lambda row: torch.zeros_like(prefix), visits.append))
    return (
        torch.cat([chunk.latents for chunk in found], 1),
        found[0].kv_bytes,
        {(v.row, v.chunk, v.branch) for v in visits},
    )


@pytest.mark.parametrize("given", [0, 3])
def test_the_same_with_half_the_memory(given, monkeypatch):
    latents, memory, visits = window(given)
    monkeypatch.setattr(sampler, "in_turn", lambda policy: False)
    expected, twice, others = window(given)
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)
    assert memory * 2 == twice and visits == others


@pytest.mark.parametrize(
    "policy",
    [Policy("flowcache", kv_update="refresh"), Policy("dense", attention="full"), Policy("paper", kv_update="stale")],
)
def test_others_keep_both_branches(policy):
    assert SETTINGS.plan(8, policy).kv_branches == 2
    assert SETTINGS.plan(8, OFF).kv_branches == replace(SETTINGS, guidance=1.0).plan(8, OFF).kv_branches == 1
