"""Budgets at true sizes: predicted milliseconds on one H100 for each chunk's forward of the official program."""

from dataclasses import replace

import pytest

from benchmarks.roofline import (
    ALL_REUSED,
    CASES,
    COMPUTED,
    DECODERS,
    DENSE,
    GIB,
    OFF,
    asked,
    decoding,
    forward,
    magi_codec,
    seconds,
    settings_of,
    simulate,
)
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.vae_codec import MagiCodec
from flowcache.families.memory import codec_bytes
from flowcache.families.vae_tiling import TILE
from flowcache.planner.price import CostModel, Window
from flowcache.records import ModelSpec

MILLISECONDS = {"1.3B": 160, "14B": 900, "4.5B": 480, "24B": 3900}


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["1.3B", *(pytest.param(name, marks=pytest.mark.slow) for name in ("14B", "4.5B", "24B"))]
)
def test_a_forward_stays_within_its_budget(name):
    case = CASES[name]
    tally, forwards = simulate(case, COMPUTED[case.magi])
    took = forward(tally, forwards)
    assert took.total * forwards / asked(case, COMPUTED[case.magi]) < MILLISECONDS[name]
    assert took.fp32 < 0.01 * took.total, "products in fp32 take thirteen times as long as in bf16"
    assert not tally.mixed


@pytest.mark.slow
def test_magis_vae_computes_in_half_precision_on_a_gpu():
    tally, peak = DECODERS["MAGI-1 VAE 720x720"]()
    assert 1e3 * seconds(tally) < 160 and peak < 1.8 * GIB
    assert ("matmul", "float32") not in tally.kernels and not tally.waits and not tally.mixed


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "policy"),
    [
        *(("14B", "flowcache"), ("14B 720P", "dense"), ("1.3B", "dense"), ("4.5B", "flowcache")),
        pytest.param("14B", "off", marks=pytest.mark.slow),
    ],
)
def test_what_plan_says_of_memory_is_what_a_window_holds(name, policy):
    case = CASES[name]
    policies = {"off": OFF[case.magi], "dense": DENSE, "flowcache": replace(COMPUTED[case.magi], reuse=ALL_REUSED)}
    steps = 4 if case.magi else case.chunks
    tally, _ = simulate(case, policies[policy], steps)
    spec = ModelSpec(
        name, case.config.family, "", "", chunk=case.frames, window=case.frames * case.chunks, overlap=case.frames,
        channels=16, width=8 * case.columns, height=8 * case.rows, pipeline=Pipeline(),
    )  # fmt: skip
    seen = Window(name, settings_of(case, steps), (spec.window, case.rows, case.columns), 0)
    said = CostModel({name: spec}, {name: case.config}).price(seen, policies[policy]).memory
    assert said.total - said.codec == pytest.approx(tally.peak, rel=0.1)
    held = said.weights + said.keys_values
    assert said.total - said.codec - held == pytest.approx(tally.peak - held, rel=0.1)
    if (name, policy) == ("14B", "off"):
        assert tally.peak + codec_bytes(spec, TILE) < 0.95 * 79.6 * GIB  # of an H100, decoding in tiles


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "MAGI" in name else []) for name in DECODERS]
)
def test_what_plan_says_of_decoding(name):
    _, peak = DECODERS[name]()
    magi, (width, height) = "MAGI" in name, {"540P": (960, 544), "720P": (1280, 720)}.get(name.split()[2], (720, 720))
    if name.endswith("1280x720"):
        width = 1280
    spec = ModelSpec("", "magi" if magi else "skyreels", "", "", 6, 6, 6, 16, width=width, height=height)
    assert codec_bytes(spec, dtype="bf16" if name.endswith("bf16") else "auto") == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize(("tile", "fps"), [(512, 24), (None, 48), (1024, 24)])
def test_what_plan_says_of_other_tiles_of_magis_vae(tile, fps):
    _, peak = decoding(lambda: MagiCodec(magi_codec().vae, tile).at(fps), 6, 60, 60)
    spec = ModelSpec("", "magi", "", "", 6, 6, 6, 16, width=480, height=480, fps=fps)
    assert codec_bytes(spec, tile) == pytest.approx(peak, rel=0.05)
