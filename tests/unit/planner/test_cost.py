"""What a manifest will cost: against known counts of the real model, and against torch's own counter."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flowcache.cache.policy import Policy
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.inputs.segments import plan
from flowcache.planner.cost import Cost, compared
from flowcache.planner.cost import cost as cost_of
from flowcache.planner.price import CostModel, cost_model, window
from flowcache.planner.rank_work import flops
from flowcache.planner.workload import workload
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.sampling.dry_run import dry_run
from flowcache.sampling.loop import Texts, denoise
from tests.unit.sampling.small import POLICIES, small_model

# SkyReels-V2-DF-1.3B-540P: its config and how it is run; there are no weights.
CONFIG = {
    "dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "in_dim": 16, "out_dim": 16, "text_dim": 4096,
    "text_len": 512,
}  # fmt: skip
PRESETS = {"slow": {"threshold": 0.1, "ret_steps": 22, "coefficients": [1.0]}}


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(CONFIG))
    return ModelSpec(
        "1.3B", "skyreels", str(tmp_path), "digest", chunk=5, window=25, overlap=5, channels=16, reuse=PRESETS
    )


def request(frames=177, **fields):
    given = dict(width=960, height=544, fps=24, seed=1, guidance=6.0, steps=50, policy={"name": "off"})
    return RenderRequest("v", (Shot("a", frames),), model="1.3B", **given | fields)


def cost(requests, specs) -> Cost:
    return cost_of(workload(requests, cost_model(specs)))


def test_the_real_setting(spec):
    """177 frames, 50 steps, windows of 97 with 17 of overlap: counts and PFLOPs of the project's notes."""
    found = cost([request(policy={"name": "paper", "preset": "slow"})], {"1.3B": spec})
    assert (found.videos, found.segments, found.chunks, found.frames) == (1, 2, 9, 177)
    dense, kept = found.without_reuse["dense"], found.without_reuse["paper"]
    assert (dense.forwards, kept.forwards, found.most) == (1350, 902, kept)
    assert dense.flops / 1e15 == pytest.approx(165, rel=0.005)
    assert kept.flops / 1e15 == pytest.approx(79.7, rel=0.005)
    assert found.least.forwards == 2 * 9 * 23 + 2 and found.least.flops / 1e15 == pytest.approx(36.7, rel=0.005)
    refreshed = found.without_reuse["flowcache"]  # each finished chunk once more, but those that nothing follows
    assert refreshed.forwards == 902 + 2 * (4 + 3)
    assert found.most.kv_bytes == 2 * 30 * (5 * 10_200) * 1536 * 2 * 2


def test_eighteen_of_fifty_steps(spec):
    policy = {"name": "paper", "preset": "slow", "ret_steps": 17}
    assert cost([request(policy=policy)], {"1.3B": spec}).least.flops / 1e15 == pytest.approx(28.7, rel=0.005)


def test_dense_block_causal_as_published(spec):
    """All slots forwarded, each seeing what is up to its own end: 113.6 PF."""
    wanted, config, total = request(), SkyReelsConfig(1536, 8960, 12, 30), 0
    for segment in plan(wanted, spec):
        every = window(wanted, segment, spec)
        done = dry_run(every.settings, every.shape, (1, 2, 2), Policy("dense", attention="full"), every.given)
        total += flops(config, replace(done, seen=done.seen * 3 // 5))  # (1 + 2 + 3 + 4 + 5) / 25 of the pairs
    assert total / 1e15 == pytest.approx(113.6, rel=0.005)


@pytest.mark.parametrize("held", [0, 1, 2])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_flops_are_those_that_torch_counts(policy, held):
    model = small_model()
    given = SamplerSettings(steps=4, shift=3.0, guidance=3.0, ar_step=2, chunk=2, fps=24)
    torch.manual_seed(0)
    prefix = torch.randn(4, held, 16, 16) if held else None
    texts = Texts(torch.randn(1, 8, 16), torch.randn(1, 8, 16))
    noise, counter = torch.randn(4, 6, 16, 16), FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        list(denoise(model, noise, texts, given, policy, prefix, lambda row: torch.zeros(4, held // 2 * 2, 16, 16)))
    expected = flops(model.config, dry_run(given, (6, 16, 16), (1, 2, 2), policy, held))
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_magi_at_the_published_setting():
    """4.5B distilled, 720x720, 10 chunks, 64 steps: 306 PFLOPs for the whole history, about 208 for the last chunks."""
    config = MagiConfig(3072, 12288, 24, 8, 128, 34)
    magi = ModelSpec(
        "4.5B", "magi", "path", "digest", chunk=6, window=60, overlap=24, channels=16, causal=False,
        pipeline=Pipeline(passes=1, distilled=True),
    )  # fmt: skip
    wanted = replace(request(240, width=720, height=720, steps=64, guidance=1.0), model="4.5B")
    (segment,) = plan(wanted, magi)
    pairs = compared(window(wanted, segment, magi), magi)
    costs = CostModel({"4.5B": magi}, {"4.5B": config})
    counted = {name: costs.price(seen, policy).most for name, (seen, policy) in pairs.items()}
    assert counted["dense"].flops / 1e15 == pytest.approx(306, rel=0.03)
    assert counted["off"].flops / 1e15 == pytest.approx(208, rel=0.03)
    assert counted["off"].forwards == 640 + 160 + 9  # steps, copies of the cleanest chunk, refreshed chunks
    assert counted["paper"].forwards == 640
    assert counted["off"].kv_bytes == 2 * 34 * (5 * 12_150) * 8 * 128 * 2 == counted["dense"].kv_bytes // 2


def test_a_night_is_counted_in_a_moment(spec):
    requests = [replace(request(97 + 80 * (i % 7)), id=f"v{i}", seed=i) for i in range(700)]
    found = cost(requests, {"1.3B": spec})
    assert found.segments == sum(1 + i % 7 for i in range(700))
    assert found.chunks == sum(5 + 4 * (i % 7) for i in range(700))
    single = cost(requests[:7], {"1.3B": spec})
    assert found.most.forwards == single.most.forwards * 100
