"""What the runs of `skyreels_loop` say of themselves, as settings and policies; what is not known here is an error."""

from itertools import count
from typing import Any

import pytest

from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import CountedReuse, Reuse
from flowcache.families.skyreels.published import POLYNOMIALS
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.sampling.schedule import schedule
from flowcache.sampling.solver import sigmas, timesteps
from tests.parity.given import Given
from tests.parity.recorded import Recorded

OFFICIAL, FLOWCACHE = "official SkyReels-V2", "FlowCache fork"
RET_STEPS = {True: 5, False: 1}
TOLERANCE = 1e-4  # of x0
EVERYTHING = 10**6  # chunks

Window = tuple[tuple[int, int, int], int]  # latent frames, rows, columns; how many frames come from before


def policy_of(run: dict[str, Any], settings: dict[str, Any]) -> Policy:
    """The policy that a run's settings stand for."""
    with Given(f"run {run['name']}", run) as said:
        said.skip(*(f"{table}{cols}" for table in ("visits", "kv", "calls") for cols in ("", "_cols")))
        said.skip("file", "compress_events", "min_margin")
        said.skip("cond_uncond_decisions_identical", "decision_pattern_same_for_all_chunks")
        name, kind, causal, tea, args = (said[key] for key in ("name", "kind", "causal_attention", "tea", "args"))
    if kind == OFFICIAL and not args:
        attention = "causal" if causal else "full"
        return Policy(name, tea and CountedReuse(*reuse_of(name, tea), signal=signal_of(tea)), attention=attention)
    if kind != FLOWCACHE or causal:
        raise ValueError(f"run {name} is of kind {kind!r}, causal_attention {causal}, args {args}")
    clean, compression = kept_of(name, args or {})
    # Where it does not reuse, or all chunks start together, it does not know that a window has a prefix.
    unknown = tea is None or settings["ar_step"] == 0
    reuse = tea and Reuse(*reuse_of(name, tea))
    return Policy(name, reuse, "stale", renoise=unknown, clean=clean, compression=compression)


def signal_of(tea: dict[str, Any]) -> str:
    """At which TeaCache looks; FlowCache always looks at the first."""
    return "blocks" if tea["use_ret_steps"] else "time"


def reuse_of(name: str, tea: dict[str, Any]) -> tuple[float, int, tuple[float, ...]]:
    """Threshold, warm-up steps and polynomial."""
    with Given(f"tea of run {name}", tea) as said:
        threshold, retained, checkpoint = said["teacache_thresh"], said["use_ret_steps"], said["ckpt_dir"]
        own = [key for key, value in tea.items() if isinstance(value, list)]
        if len(own) > 1 or "I2V" in checkpoint:
            raise ValueError(f"tea of run {name}: which polynomial?")
        size = "14B" if "14B" in checkpoint else "1.3B"
        coefficients = said[own[0]] if own else POLYNOMIALS[size, "ret" if retained else "noret"]
    return threshold, RET_STEPS[retained], tuple(coefficients)


def kept_of(name: str, args: dict[str, Any]) -> tuple[int | None, Compression | None]:
    """Chunks' worth of clean tokens that are kept, and how they are chosen."""
    with Given(f"args of run {name}", args) as said:
        recent, compressed = said.get("use_kvrange"), said.get("use_compress")
        chunks, budget = said.get("kvrange"), said.get("budget_block")
    if compressed:  # goes before use_kvrange
        return budget or EVERYTHING, Recorded()
    return (chunks, None) if recent else (None, None)


def sampler_of(settings: dict[str, Any]) -> tuple[SamplerSettings, list[Window]]:
    """How to denoise, and the windows of the video."""
    with Given("settings", settings) as said:
        said.skip("vae_scale", "num_heads", "inject_sample_info")
        sampler = SamplerSettings(
            steps=said["N"], shift=said["shift"], guidance=said["guidance"], ar_step=said["ar_step"],
            chunk=said["causal_block_size"], fps=said["fps"], condition_noise=said["addnoise_condition"],
        )  # fmt: skip
        left, most, overlap = (1 + (said[k] - 1) // 4 for k in ("num_frames", "base_num_frames", "overlap_history"))
        size = said["height"] // 8, said["width"] // 8
    windows, before = [], 0
    while left > 0:
        length = min(before + left, most)
        windows.append(((length, *size), before))
        left, before = left - (length - before), overlap
    return sampler, windows


def check_rows(sampler: SamplerSettings, window: Window, listed: dict[str, Any]) -> None:
    """The window's schedule against the official one."""
    (frames, *_), before = window
    rows = schedule(frames, sampler.chunk, timesteps(sigmas(sampler.steps, sampler.shift)), sampler.ar_step, before)
    with Given("rows", listed) as said:
        for ours, theirs in (("timesteps", "step_matrix"), ("index", "step_index"), ("update", "update")):
            assert [list(getattr(row, ours)) for row in rows] == said[theirs], theirs


def compare_calls(case, seen):
    """TeaCache's counter, decision and sum at every forward of a window, of which the official code has no others."""
    if "calls" not in case:
        return
    by_call = {(number, v.row, v.branch): v.decision for number, v in seen if v.step >= 0}
    counter = count()
    for (number, row, branch), (before, computed, accumulated) in zip(sorted(by_call), case["calls"], strict=True):
        counter = counter if before else count()
        assert next(counter) == before
        decision = by_call[number, row, branch]
        assert decision.compute == bool(computed), (number, row, branch)
        if not computed:
            assert decision.accumulated == pytest.approx(accumulated, rel=5e-5), (number, row, branch)
