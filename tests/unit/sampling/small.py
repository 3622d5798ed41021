"""A model that a test can run at once, and a policy of each kind."""

from dataclasses import replace

import torch

from flowcache.cache.fixed_steps import FixedSteps
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import CountedReuse, JointReuse, Reuse
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.sampling.dry_run import at_least
from flowcache.sampling.loop import Texts, denoise

EXACT = Policy("off", kv_update="refresh")
SKYREELS = SamplerSettings(steps=8, shift=3.0, guidance=3.0, ar_step=4, chunk=2, fps=24, solver="corrected")
MAGI = MagiSettings(8, 4, 2, 24, 7.5, Pipeline(window=2))
FAMILIES = {
    "skyreels": (SKYREELS, replace(SKYREELS, steps=4, ar_step=2)),
    "magi": (MAGI, replace(MAGI, steps=4, lag=2)),
}
OFF = {"skyreels": Policy("off"), "magi": EXACT}
POLICIES = {
    "off": Policy("off"),
    "dense": Policy("dense", attention="full"),
    "keep": Policy("paper", None, "stale"),
    "refresh": Policy("flowcache", None, "refresh"),
    "reuse": at_least(Policy("paper", Reuse(0.1, 2, (1.0, 0.0)), "stale")),
    "teacache": at_least(Policy("teacache", JointReuse(0.1, 2, (1.0, 0.0)), "refresh")),
    "counted": at_least(Policy("dense", CountedReuse(0.1, 2, (1.0, 0.0)), attention="full")),
    "counted causal": at_least(Policy("off", CountedReuse(0.1, 2, (1.0, 0.0)))),
    "recent": Policy("paper", None, "stale", clean=1),
}


def small_model() -> SkyReelsTransformer:
    """4 channels, 4 heads of 12, 2 layers; texts of 8 tokens of 16. The same weights every time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = SkyReelsConfig(48, 96, 4, 2, in_channels=4, out_channels=4, text_dim=16, text_len=8, freq_dim=16)
    return SkyReelsTransformer(config).requires_grad_(False)


def small_magi() -> MagiTransformer:
    """4 channels, 8 heads of 8, 2 layers; texts of 16. The same weights every time."""
    torch.manual_seed(0)
    config = MagiConfig(
        dim=32, ffn_dim=64, heads=8, kv_heads=2, head_dim=8, layers=2, channels=4, text_dim=16, text_len=60,
        condition_dim=16,
    )  # fmt: skip
    return MagiTransformer(config).requires_grad_(False)


def policy(budget, *calibrations, off=None) -> Policy:
    """Of `flowcache` with a budget."""
    return Policy("flowcache", kv_update="refresh", steps=FixedSteps(budget, calibrations), off=off)


def run(model, settings, policy, given=0):
    """A window of three chunks: its latents, its chunks, and how many forwards it took."""
    torch.manual_seed(1)
    noise, texts = torch.randn(4, 6, 4, 4), Texts(torch.randn(1, 8, 16), torch.randn(1, 8, 16))
    prefix, visits = (torch.randn(4, given, 4, 4) if given else None), []
    whole = torch.zeros(4, given // 2 * 2, 4, 4)
    chunks = list(denoise(model, noise, texts, settings, policy, prefix, lambda row: whole, visits.append))
    return torch.cat([chunk.latents for chunk in chunks], 1), chunks, len(visits)
