"""The denoise loop against whole runs of official SkyReels-V2 and FlowCache: latents, decisions, K/V."""

import pytest
import torch

from flowcache.sampling.loop import Texts, denoise
from tests.parity.skyreels_runs import TOLERANCE, check_rows, compare_calls, policy_of, sampler_of


def segments(golden, name, policy):
    """Denoise one window after the other; yields (window, latents with the prefix, visits)."""
    facts, data = golden.facts(name), golden.tensors(name)
    settings, windows = sampler_of(facts["settings"])
    for window, rows in zip(windows, facts["rows"], strict=True):
        check_rows(settings, window, rows)
    model = golden.model(facts["settings"]["num_heads"], facts["settings"]["inject_sample_info"])
    texts, latents = Texts(data["in.prompt"], data["in.negative"]), torch.empty(model.config.in_channels, 0, 0, 0)
    for number, (shape, overlap) in enumerate(windows):
        noise, visits = data[f"in.noise_seg{number}"], []
        assert noise.shape[1:] == shape
        prefix = latents[:, -overlap:] if overlap else None
        condition_noise = data.get(f"in.cond_noise_seg{number}")
        of_row = None if condition_noise is None else condition_noise.__getitem__
        chunks = [c.latents for c in denoise(model, noise, texts, settings, policy, prefix, of_row, visits.append)]
        whole = torch.cat(chunks if prefix is None else [prefix, *chunks], dim=1)
        latents = whole if prefix is None else torch.cat([latents, *chunks], dim=1)  # what is shown of all windows
        yield number, whole, visits
    assert f"in.noise_seg{len(windows)}" not in data


@pytest.mark.golden("skyreels_loop*", "runs")
def test_loop(golden, case, record_property):
    name = case["file"]
    data, seen, policy = golden.tensors(name), [], policy_of(case, golden.facts(name)["settings"])
    for number, latents, visits in segments(golden, name, policy):
        compare_traces(data, case["name"], number, visits)
        error = (latents - data[f"{case['name']}.x0_seg{number}"]).abs().max().item()
        record_property(f"x0 error, window {number}", error)
        assert error <= TOLERANCE
        seen += [(number, visit) for visit in visits]
    compare_visits(case, seen)
    compare_calls(case, seen)
    compare_kv(case, seen)
    if "compress_events" in case:
        expected = golden.tensors(f"{name}_compress_idx_{case['name']}")
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
