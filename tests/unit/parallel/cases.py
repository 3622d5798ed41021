"""Random videos of random small models: shapes, policies and compression as the engine takes them."""

from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from hypothesis import strategies as st

from flowcache.cache.kv_select import Compression, Sink
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import CountedReuse, JointReuse, Reuse
from flowcache.cache.step_cache import CacheOf, RepeatIncrement, RepeatVelocity
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.families.policy_settings import UNITS, WEIGHTINGS
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.models.base import VideoModel
from flowcache.parallel.apply import shard
from flowcache.parallel.mesh import ALONE, GangMesh, arrange
from flowcache.sampling import executor
from flowcache.sampling.loop import Texts, denoise

CHANNELS, TEXT = 4, 8
PIPELINE = Pipeline(window=2, kv_ranges=(), clean_kv_range=-1)


@dataclass(frozen=True)
class Case:
    """Two windows, the second of which continues the first. kv_heads divide heads; sizes in latent pixels, even.

    picture: the first window begins with a frame that is held; end: the second ends with one.
    """

    family: str
    policy: Policy
    kv_heads: int
    queries: int  # heads for each of the K/V heads
    chunk: int
    chunks: int  # of a window
    height: int
    width: int
    steps: int
    lag: int
    picture: bool
    end: bool
    seed: int

    @property
    def tokens(self) -> int:
        return self.chunk * self.height // 2 * self.width // 2


@dataclass(frozen=True)
class Outcome:
    """latents [C, F, H, W] of both windows; decisions and tokens seen of every forward; K/V bytes of both."""

    latents: np.ndarray
    decisions: list[tuple]
    kv_bytes: list[int]


def model_of(case: Case) -> VideoModel:
    """Random weights, the same on every rank."""
    heads = case.kv_heads * case.queries
    if case.family == "skyreels":
        config = SkyReelsConfig(8 * heads, 32, heads, 2, CHANNELS, CHANNELS, text_dim=TEXT, freq_dim=16)
        model = SkyReelsTransformer(config)
    else:
        sizes = {"channels": CHANNELS, "text_dim": TEXT, "text_len": 3, "condition_dim": 8}
        model = MagiTransformer(MagiConfig(32, 64, heads, case.kv_heads, 16, 2, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def settings_of(case: Case) -> SamplerSettings | MagiSettings:
    if case.family == "skyreels":
        return SamplerSettings(case.steps, shift=3.0, guidance=3.0, ar_step=case.lag, chunk=case.chunk, fps=24)
    return MagiSettings(case.steps, lag=max(case.lag, 1), chunk=case.chunk, fps=24, guidance=3.0, pipeline=PIPELINE)


def play(ranks: GangMesh, case: Case) -> Outcome:
    torch.manual_seed(case.seed)
    model, visits, latents, kv_bytes = shard(model_of(case), ranks), [], [], []
    shape, skyreels = (CHANNELS, case.chunk * case.chunks, case.height, case.width), case.family == "skyreels"
    first, noise, second = (torch.randn(shape) for _ in range(3))
    given = {"kv_sharding": model.kv_sharding() if ranks is not ALONE else None, "observe": visits.append}
    texts = Texts(torch.randn(1, 3, TEXT), torch.randn(1, 3, TEXT))
    prefix = first[:, :1] if case.picture else None
    for number, window in enumerate((noise, second)):
        drawn = torch.randn(20 * case.steps, CHANNELS, case.chunk, case.height, case.width)  # for each row
        if skyreels:
            given["condition_noise_of"] = drawn.__getitem__
            given["end"] = first[:, -1:] if case.end and number else None
        chunks = list(denoise(model, window, texts, settings_of(case), case.policy, prefix=prefix, **given))
        latents += [chunk.latents for chunk in chunks]
        kv_bytes.append(chunks[-1].kv_bytes)
        prefix = latents[-1]
    return Outcome(
        torch.cat(latents, dim=1).numpy(),
        [(v.row, v.chunk, v.branch, v.step, v.decision.compute, v.seen) for v in visits],
        kv_bytes,
    )


def play_on(group: dist.ProcessGroup, case: Case) -> Outcome:
    return play(arrange(group, case.kv_heads), case)


def play_one_by_one(group: dist.ProcessGroup, case: Case) -> Outcome:
    with mock.patch.object(executor, "PACKED_CHUNK", 0):
        return play_on(group, case)


compressions = st.builds(
    Compression,
    mix=st.floats(0, 1),
    by=st.sampled_from(UNITS),
    queries=st.sampled_from(UNITS),
    weighting=st.sampled_from(WEIGHTINGS),
)
kept = st.one_of(
    st.tuples(st.just(1), compressions),
    st.tuples(st.just(2), compressions),
    st.sampled_from([(None, None), (1, None), (2, Sink(1, 1))]),
)
reuse = st.builds(Reuse, threshold=st.floats(0.3, 3), warmup_steps=st.integers(0, 1), coefficients=st.just((1.0, 0.0)))


@st.composite
def policies(draw, family: str) -> Policy:
    """off, dense, and the published and the mended FlowCache with everything that they can be told."""
    name = draw(st.sampled_from(["mended", "paper", "mended", "paper", "off", "dense", "counted"]))
    if name in ("dense", "counted") and family == "skyreels":
        attention = "full" if name == "dense" else draw(st.sampled_from(["full", "causal"]))
        rule = CountedReuse(**vars(draw(reuse))) if name == "counted" else None
        return Policy(name, rule, attention=attention)
    if name in ("off", "dense", "counted"):
        return Policy("off", kv_update="refresh" if family == "magi" else "recompute")
    clean, compression = draw(kept)
    fields = {"reuse": draw(reuse | st.none()), "clean": clean, "compression": compression}
    fields["kv_update"] = draw(st.sampled_from(["stale", "refresh"]))
    if family == "skyreels":
        if fields["reuse"] and draw(st.booleans()):
            fields["reuse"] = JointReuse(**vars(fields["reuse"]))
        return Policy(name, **fields, renoise=clean is None and draw(st.booleans()))
    if fields["reuse"]:
        fields["reuse"] = replace(fields["reuse"], last_step=draw(st.booleans()))
    cache, cut = st.sampled_from([RepeatVelocity, RepeatIncrement]), st.sampled_from(["before", "after"])
    return Policy(name, **fields, cache=CacheOf(draw(cache)), cut=draw(cut))


@st.composite
def cases(draw, family: str) -> Case:
    chunk = draw(st.integers(1, 3))
    return Case(
        family,
        draw(policies(family)),
        kv_heads=draw(st.integers(1, 6)),
        queries=1 if family == "skyreels" else draw(st.integers(1, 3)),
        chunk=chunk,
        chunks=draw(st.integers(2, 4)),
        height=2 * draw(st.integers(1, 3)),
        width=2 * draw(st.integers(2, 4)),
        steps=draw(st.integers(3, 5)),
        lag=draw(st.integers(0, 2)),
        picture=draw(st.booleans()),
        end=chunk > 1 and draw(st.booleans()),
        seed=draw(st.integers(0, 1000)),
    )
