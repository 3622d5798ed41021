"""Compiled blocks: one graph for each unit, whatever is sampled, and the same latents."""

import copy
import pickle
from dataclasses import dataclass
from shutil import which

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatVelocity
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.models.attention import attention
from flowcache.models.base import VideoModel
from flowcache.models.compile import compile_blocks
from flowcache.sampling.loop import Texts, denoise
from flowcache.sampling.plan import Settings

UNITS = {"skyreels": 3, "magi": 2}
FAMILIES = list(UNITS)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
OFTEN = Reuse(threshold=0.5, warmup_steps=1, coefficients=(1.0, 0.0))
CUT = Policy(
    "paper", OFTEN, kv_update="refresh", clean=1, compression=Compression(by="token"), cache=CacheOf(RepeatVelocity)
)


@dataclass(frozen=True)
class Case:
    """A window of chunks of two latent frames. guided: with as many passes as the family has; texts: their tokens."""

    chunks: int = 4
    height: int = 4
    width: int = 6
    steps: int = 3
    guided: bool = False
    text: int = 3
    negative: int = 3
    given: int = 0
    policy: Policy = Policy("off", kv_update="refresh")


FIRST = Case()
OTHERS = {
    "longer": Case(chunks=6),
    "one chunk": Case(chunks=1),
    "larger": Case(height=8, width=10),
    "as many tokens as the width": Case(height=8, width=16),
    "more steps": Case(steps=5),
    "another text": Case(text=7),
    "a text of one token": Case(text=1),
    "guidance": Case(guided=True),
    "guidance by a text of another length": Case(guided=True, negative=5),
    "a prefix": Case(given=2),
    "a prefix within a chunk": Case(given=3),
    "a prefix, guidance, another size": Case(given=5, guided=True, height=6, chunks=5),
    "reuse and a budget": Case(steps=6, guided=True, policy=CUT),
}


def settings(family: str, case: Case) -> Settings:
    if family == "skyreels":
        return SamplerSettings(case.steps, shift=3.0, guidance=3.0 if case.guided else 1.0, ar_step=1, chunk=2, fps=24)
    pipeline = Pipeline(2, passes=3 if case.guided else 1, kv_ranges=(), clean_kv_range=-1)
    return MagiSettings(case.steps, lag=1, chunk=2, fps=24, guidance=3.0, pipeline=pipeline)


def build(family: str) -> VideoModel:
    """Of four layers, 64 wide."""
    if family == "skyreels":
        config = SkyReelsConfig(64, 96, 4, 4, in_channels=4, out_channels=4, text_dim=8, freq_dim=16)
        model = SkyReelsTransformer(config)
    else:
        config = MagiConfig(64, 128, 8, 4, 16, 4, channels=4, text_dim=8, text_len=3, condition_dim=16)
        model = MagiTransformer(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model.requires_grad_(False)


def sample(model: VideoModel, family: str, case: Case) -> torch.Tensor:
    torch.manual_seed(1)
    noise, given = (torch.randn(4, frames, case.height, case.width) for frames in (2 * case.chunks, case.given))
    texts = Texts(torch.randn(1, case.text, 8), torch.randn(1, case.negative, 8))
    noised = torch.randn_like(given)
    chunks = denoise(
        model, noise, texts, settings(family, case), case.policy, given if case.given else None, lambda row: noised
    )
    return torch.cat([chunk.latents for chunk in chunks], dim=1)


@torch.inference_mode()
def rows(model: VideoModel, family: str, each_frame: bool) -> torch.Tensor:
    """Three rows of a batch that differ in time, place, text and what of it counts: tokens after all blocks."""
    torch.manual_seed(1)
    latents, texts = torch.randn(3, 4, 2, 4, 6), torch.randn(3, 5, 8)
    times = torch.tensor([[10.0, 900.0], [500.0, 20.0], [300.0, 700.0]])
    times = times if each_frame else times[:, :1].expand(-1, 2)
    grid, masked = model.grid(latents), torch.arange(5) < torch.tensor([[5], [3], [1]])
    text = model.text(texts, masked) if family == "magi" else model.text(texts)
    rope = model.rope(grid)[torch.stack([torch.randperm(grid.tokens) for _ in range(3)])]
    tokens = model.embed(latents)
    conditioning = model.condition(times, grid, 24)
    return model.transform(tokens, conditioning, [text], [rope], lambda layer, *qkv: attention(*qkv))


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch.set_num_threads(1)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def follow(family: str, first: Case, backend: str) -> None:
    """Sample compiled and not: the same latents, and no graph after the first window."""
    counter, plain, compiled = CompileCounterWithBackend(backend), build(family), build(family)
    compile_blocks(compiled, counter)
    for name, case in {"first": first, **OTHERS}.items():
        found, expected = sample(compiled, family, case), sample(plain, family, case)
        assert counter.frame_count == UNITS[family], name  # of 4 layers and, in the first window, 4 chunks
        torch.testing.assert_close(found, expected, **CLOSE, msg=lambda m, name=name: f"{name}: {m}")
    for each_frame in (False, True):
        torch.testing.assert_close(*(rows(model, family, each_frame) for model in (compiled, plain)), **CLOSE)
    assert counter.frame_count == UNITS[family]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("first", [FIRST, OTHERS["as many tokens as the width"]], ids=["short", "as long as wide"])
def test_after_the_first_window_nothing_is_compiled(family, first):
    follow(family, first, "aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(not which("g++"), reason="needs a C++ compiler")
@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_kernels_give_the_same(family):
    follow(family, FIRST, "inductor")


def test_other_blocks_are_refused():
    class Other:
        blocks = torch.nn.ModuleList()

    with pytest.raises(TypeError, match="Other has blocks that can't be compiled"):
        compile_blocks(Other())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiled_model_can_be_copied_and_sent(family, copied):
    """The copy is one of its own, compiled when it is used; its layers share their graphs, too."""
    model = build(family)
    compile_blocks(model, "aot_eager")
    other, expected = copied(model), sample(model, family, FIRST)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(sample(other, family, FIRST), expected)
    units = {vars(block)[name].func for block in other.blocks for name in block.units}
    assert len(units) == UNITS[family]
