"""The denoise loop against whole runs of official SkyReels-V2 and FlowCache: latents, decisions, K/V."""

from dataclasses import dataclass, field

import pytest
import torch

from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.sampling.loop import Texts, denoise

TOLERANCE = 1e-4
# The published polynomials, by checkpoint and whether it was fitted with a longer unskipped start.
POLYNOMIALS = {
    ("1.3B", True): (-5.21862437e04, 9.23041404e03, -5.28275948e02, 1.36987616e01, -4.99875664e-02),
    ("1.3B", False): (2.39676752e03, -1.31110545e03, 2.01331979e02, -8.29855975e00, 1.37887774e-01),
    ("14B", True): (-3.03318725e05, 4.90537029e04, -2.65530556e03, 5.87365115e01, -3.15583525e-01),
    ("14B", False): (-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404),
}


@dataclass(frozen=True)
class Recorded(Compression):
    """Compression that also notes what it kept."""

    kept: list = field(default_factory=list)

    def select(self, queries, keys, budget):
        self.kept.append(super().select(queries, keys, budget))
        return self.kept[-1]


def policy_of(case):
    """The policy that a run's settings stand for."""
    if not case["kind"].startswith("FlowCache"):
        return Policy("vanilla", attention="causal" if case["causal_attention"] else "full")
    args, tea = case["args"], case["tea"]
    clean = args["kvrange"] if args["use_kvrange"] else args["budget_block"] if args["use_compress"] else None
    compression = Recorded() if args["use_compress"] else None
    if tea is None:
        return Policy(case["name"], None, "stale", renoise=True, clean=clean, compression=compression)
    own = next((value for value in tea.values() if isinstance(value, list)), None)
    coefficients = own or POLYNOMIALS[tea["ckpt_dir"], tea["use_ret_steps"]]
    reuse = Reuse(tea["teacache_thresh"], 5 if tea["use_ret_steps"] else 1, tuple(coefficients))
    return Policy(case["name"], reuse, "stale", clean=clean, compression=compression)


def segments(golden, policy):
    """Denoise one segment after the other; yields (segment, latents with the prefix, visits)."""
    given, data = golden.facts("skyreels_loop")["settings"], golden.tensors("skyreels_loop")
    model = golden.model(given["num_heads"], given["inject_sample_info"])
    settings = SamplerSettings(
        steps=given["N"], shift=given["shift"], guidance=given["guidance"], ar_step=given["ar_step"],
        chunk=given["causal_block_size"], fps=given["fps"], condition_noise=given["addnoise_condition"],
    )  # fmt: skip
    texts, overlap, latents, segment = Texts(data["in.prompt"], data["in.negative"]), given["overlap_history"], None, 0
    while f"in.noise_seg{segment}" in data:
        noise, visits = data[f"in.noise_seg{segment}"], []
        prefix = None if latents is None else latents[:, -((overlap - 1) // 4 + 1) :]
        condition_noise = data.get(f"in.cond_noise_seg{segment}")
        of_row = None if condition_noise is None else condition_noise.__getitem__
        chunks = list(denoise(model, noise, texts, settings, policy, prefix, of_row, visits.append))
        latents = torch.cat([*([] if prefix is None else [prefix]), *(chunk.latents for chunk in chunks)], dim=1)
        yield segment, latents, visits
        segment += 1


@pytest.mark.golden("skyreels_loop", "runs")
def test_loop(golden, case, record_property):
    data, seen = golden.tensors("skyreels_loop"), []
    policy = policy_of(case)
    for segment, latents, visits in segments(golden, policy):
        compare_traces(data, case["name"], segment, visits)
        error = (latents - data[f"{case['name']}.x0_seg{segment}"]).abs().max().item()
        record_property(f"x0 error, segment {segment}", error)
        assert error <= TOLERANCE
        seen += [(segment, visit) for visit in visits]
    compare_visits(case, seen)
    compare_kv(case, seen)
    if "compress_events" in case:
        expected = golden.tensors(f"skyreels_loop_compress_idx_{case['name']}")
        kept = one_branch_after_the_other(
            policy.compression.kept, golden.facts("skyreels_forward")["config"]["num_layers"]
        )
        assert len(kept) == len(case["compress_events"])
        for event, ours in enumerate(kept):
            assert torch.equal(ours.sort(0).values, expected[str(event)].long().sort(0).values), event


def one_branch_after_the_other(kept, layers):
    """As officially: here both branches run as one batch, layer by layer."""
    order = [2 * layers * (i // (2 * layers)) + 2 * (i % layers) + i // layers % 2 for i in range(len(kept))]
    return [kept[i] for i in order]


def compare_traces(data, run, segment, visits):
    """Latents at each step's input and both model outputs, where the file has them."""
    first = min(visit.chunk for visit in visits if visit.step >= 0)
    for visit in (visit for visit in visits if visit.step >= 0):
        name = "vuncond" if visit.branch else "vcond"
        for key, value in ((f"trace_seg{segment}", visit.latents), (f"{name}_seg{segment}", visit.velocity)):
            if f"{run}.{key}" in data:
                expected = data[f"{run}.{key}"][visit.chunk - first, visit.step]
                where = f"{key} chunk {visit.chunk} step {visit.step}"
                torch.testing.assert_close(
                    value, expected, atol=TOLERANCE, rtol=0, msg=lambda m, where=where: f"{where}: {m}"
                )


def compare_visits(case, seen):
    """Which chunks ran in which row, what was decided, and on what grounds."""
    if "visits" not in case:
        return
    expected = {tuple(v[:4]): v[4:] for v in case["visits"]}
    got = {(segment, visit.row, 1 - visit.branch, visit.chunk): visit for segment, visit in seen}
    assert got.keys() == expected.keys()
    for key, visit in got.items():
        update, step, compute, *grounds = expected[key]
        decision = visit.decision
        assert (visit.step >= 0, max(visit.step, 0), decision.compute) == (bool(update), step, bool(compute)), key
        if case["tea"] is not None:
            ours = (decision.distance, decision.estimate, decision.accumulated)
            # fp32 means differ in their last bits, which the polynomial magnifies some tenfold.
            for value, expected_value, rel in zip(ours, grounds, (1e-6, 5e-5, 5e-5), strict=True):
                near = expected_value if expected_value is None else pytest.approx(expected_value, rel=rel)
                assert value == near, key


def compare_kv(case, seen):
    """How many K/V tokens each computed forward saw."""
    if "kv" not in case:
        return
    expected = {tuple(row[:4]): row[4] for row in case["kv"]}
    got = {
        (segment, visit.row, 1 - visit.branch, visit.chunk): visit.seen
        for segment, visit in seen
        if visit.decision.compute
    }
    assert got == expected
