"""The denoise loop on a tiny random model: what must hold without any golden run."""

import pickle
import time
from dataclasses import replace

import pytest
import torch

from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import JointReuse, Reuse
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.sampling.loop import NotFinite, Texts, denoise
from flowcache.sampling.schedule import schedule
from flowcache.sampling.solver import sigmas, timesteps

SETTINGS = SamplerSettings(steps=5, shift=3.0, guidance=3.0, ar_step=2, chunk=2, fps=24)
DENSE = Policy("dense", attention="full")
OFF, KEEP, REFRESH = Policy("off"), Policy("keep", kv_update="stale"), Policy("refresh", kv_update="refresh")
SKIP = Policy("skip", Reuse(threshold=1e9, warmup_steps=2, coefficients=(1.0, 0.0)), kv_update="stale")


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = SkyReelsTransformer(SkyReelsConfig(24, 48, 2, 2, in_channels=4, out_channels=4, text_dim=8, freq_dim=16))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def given(frames, seed=1):
    torch.manual_seed(seed)
    return torch.randn(4, frames, 4, 4), Texts(torch.randn(1, 3, 8), torch.randn(1, 3, 8))


def run(model, noise, texts, policy=OFF, settings=SETTINGS, **kwargs):
    return torch.cat([chunk.latents for chunk in denoise(model, noise, texts, settings, policy, **kwargs)], dim=1)


@pytest.mark.parametrize("ar_step", [0, 1, 5, 9])
@pytest.mark.parametrize("chunks", [1, 3])
def test_off_is_the_whole_window_at_every_step(model, chunks, ar_step):
    """Every row's velocities are those of one plain forward of all its chunks under the block-causal mask."""
    settings = replace(SETTINGS, ar_step=ar_step)
    noise, texts = given(2 * chunks)
    visits = []
    run(model, noise, texts, OFF, settings, observe=visits.append)
    for row in {visit.row for visit in visits}:
        for branch, text in enumerate((texts.positive, texts.negative)):
            now = [visit for visit in visits if (visit.row, visit.branch) == (row, branch)]
            assert [visit.chunk for visit in now] == list(range(len(now)))
            times = [[timestep_of(visit, settings)] * 2 for visit in now]
            window = torch.cat([visit.latents for visit in now], dim=1)[None]
            with torch.inference_mode():
                whole = model(window, torch.tensor(times).flatten()[None], text, settings.fps, chunk=2)[0]
            for visit in now:
                if visit.velocity is not None:
                    expected = whole[:, 2 * visit.chunk : 2 * visit.chunk + 2]
                    torch.testing.assert_close(visit.velocity, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("ar_step", [0, 2, 9])
def test_full_attention_is_the_whole_window_at_every_step(model, ar_step):
    """Unstarted chunks too, at the timestep that they start with; each chunk comes when it is clean."""
    settings = replace(SETTINGS, ar_step=ar_step)
    noise, texts = given(6)
    visits = []
    chunks = list(denoise(model, noise, texts, settings, DENSE, observe=visits.append))
    assert [(chunk.index, chunk.computed, chunk.reused) for chunk in chunks] == [(i, 10, 0) for i in range(3)]
    grid = schedule(6, 2, timesteps(sigmas(settings.steps, settings.shift)), ar_step)
    assert len(visits) == 3 * 2 * len(grid)
    for row, cells in enumerate(grid):
        now = [visit for visit in visits if (visit.row, visit.branch) == (row, 0)]
        times = torch.tensor(cells.timesteps).repeat_interleave(2)[None]
        with torch.inference_mode():
            whole = model(torch.cat([visit.latents for visit in now], 1)[None], times, texts.positive)[0].split(2, 1)
        for visit in now:
            assert (visit.velocity is None) != cells.update[visit.chunk] == (visit.step >= 0)
            if visit.velocity is not None:
                torch.testing.assert_close(visit.velocity, whole[visit.chunk], atol=1e-5, rtol=0)


def test_full_attention_keeps_nothing():
    for change in ({"kv_update": "stale"}, {"kv_update": "stale", "clean": 1}):
        with pytest.raises(ValueError, match="no K/V can be kept"):
            Policy("dense", attention="full", **change)
    with pytest.raises(ValueError, match="reuse together"):
        Policy("dense", SKIP.reuse, attention="full")


def timestep_of(visit, settings):
    return 0 if visit.step < 0 else timesteps(sigmas(settings.steps, settings.shift))[visit.step]


@pytest.mark.parametrize("ar_step", [0, 1, 2, 5])
def test_refresh_equals_off(model, ar_step):
    """A finished chunk forwarded once at timestep 0 leaves the K/V that vanilla recomputes at every row."""
    settings = replace(SETTINGS, ar_step=ar_step)
    noise, texts = given(8)
    off, refreshed = (run(model, noise, texts, policy, settings) for policy in (OFF, REFRESH))
    torch.testing.assert_close(refreshed, off, atol=1e-4, rtol=0)
    if ar_step:  # published FlowCache keeps the K/V of the last noisy step, which is not the same
        assert (run(model, noise, texts, KEEP, settings) - off).abs().max() > 1e-3


def windows(model, policy, settings, noise_of):
    """Three windows, the last one shorter, each beginning with the last chunk of the one before."""
    latents = None
    for number, frames in enumerate((8, 8, 4)):
        noise, texts = given(frames, seed=number)
        prefix = None if latents is None else latents[:, -2:]
        of_row = None if prefix is None else lambda row, number=number: noise_of(number, row)
        new = run(model, noise, texts, policy, settings, prefix=prefix, condition_noise_of=of_row)
        latents = new if latents is None else torch.cat([latents, new], dim=1)
    return latents


@pytest.mark.parametrize("ar_step", [0, 2, 9])
def test_refresh_equals_off_over_windows_with_one_draw_of_noise(model, ar_step):
    """Vanilla draws the noise on a prefix anew at every row; K/V that are kept have seen only one draw."""

    def once(number, row):
        return torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(number))

    def anew(number, row):
        return torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(100 * number + row))

    settings = replace(SETTINGS, ar_step=ar_step)
    off = windows(model, OFF, settings, once)
    assert off.shape[1] == 8 + 6 + 2
    torch.testing.assert_close(windows(model, REFRESH, settings, once), off, atol=1e-4, rtol=0)
    calm = replace(settings, condition_noise=0.0)
    off = windows(model, OFF, calm, anew)
    torch.testing.assert_close(windows(model, REFRESH, calm, anew), off, atol=1e-4, rtol=0)
    assert (windows(model, REFRESH, settings, anew) - windows(model, OFF, settings, anew)).abs().max() > 1e-3


def test_chunks_come_as_soon_as_they_are_clean(model):
    noise, texts = given(6)
    visits = []
    chunks = denoise(model, noise, texts, SETTINGS, KEEP, observe=visits.append)
    for index in range(3):
        chunk = next(chunks)
        assert chunk.index == index and chunk.latents.shape == (4, 2, 4, 4)
        assert visits[-1].row == SETTINGS.steps - 1 + SETTINGS.ar_step * index
    assert next(chunks, None) is None


def test_chunks_know_nothing_of_later_ones(model):
    noise, texts = given(6)
    long, short = run(model, noise, texts), run(model, noise[:, :4], texts)
    torch.testing.assert_close(long[:, :4], short, atol=1e-5, rtol=0)


def test_counts(model):
    noise, texts = given(6)
    for policy, reused in ((OFF, 0), (KEEP, 0), (SKIP, 2)):  # steps 0 and 1 and the last are always computed
        for chunk in denoise(model, noise, texts, SETTINGS, policy):
            assert (chunk.computed, chunk.reused) == (2 * (SETTINGS.steps - reused), 2 * reused)
            assert chunk.seconds > 0
            steps = "1" * (4 - reused) + "0" * reused + "1"
            assert chunk.decisions == (steps, steps)


def test_decisions_of_every_step_however_it_is_taken(model):
    noise, texts = given(6)
    joint = replace(SKIP, reuse=JointReuse(**vars(SKIP.reuse)))
    for policy in (DENSE, OFF, REFRESH, joint):
        for guidance in (1.0, 3.0):
            settings = replace(SETTINGS, guidance=guidance)
            for chunk in denoise(model, noise, texts, settings, policy):
                assert [len(steps) for steps in chunk.decisions] == [SETTINGS.steps] * (1 + (guidance > 1))
                assert "".join(chunk.decisions).count("1") == chunk.computed
                assert "".join(chunk.decisions).count("0") == chunk.reused


def test_seconds_sum_up_to_the_time_taken_without_the_callers(model):
    noise, texts = given(6)
    spent, called, began = 0.0, 0.0, time.perf_counter()
    for chunk in denoise(model, noise, texts, SETTINGS, OFF):
        spent += chunk.seconds
        pause = time.perf_counter()
        time.sleep(0.1)
        called += time.perf_counter() - pause
    taken = time.perf_counter() - began - called
    assert 0.8 * taken <= spent <= taken


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_without_guidance_only_the_conditional_branch_runs(model, guidance):
    noise, texts = given(4)
    settings, visits = replace(SETTINGS, guidance=guidance), []
    run(model, noise, Texts(texts.positive), KEEP, settings, observe=visits.append)
    assert {visit.branch for visit in visits} == {0}


@pytest.mark.parametrize("policy", [OFF, KEEP, REFRESH, SKIP, DENSE], ids=lambda policy: policy.name)
def test_held_frames_stay(model, policy):
    """An image: less than a chunk. It is unchanged at every step and in the result, and it matters."""
    noise, texts = given(4)
    image = torch.randn(4, 1, 4, 4)
    visits = []
    latents = run(model, noise, texts, policy, prefix=image, observe=visits.append)
    assert latents.shape == noise.shape and torch.equal(latents[:, :1], image)
    assert all(torch.equal(visit.latents[:, :1], image) for visit in visits if visit.chunk == 0)
    other = run(model, noise, texts, policy, prefix=-image)
    assert (other[:, 1:] - latents[:, 1:]).abs().max() > 1e-3


@pytest.mark.parametrize("policy", [OFF, KEEP, REFRESH, SKIP, DENSE], ids=lambda policy: policy.name)
@pytest.mark.parametrize("ar_step", [0, 2])
def test_an_end_is_held_in_the_last_chunk(model, policy, ar_step):
    noise, texts = given(6)
    settings, end, visits = replace(SETTINGS, ar_step=ar_step), torch.randn(4, 1, 4, 4), []
    latents = run(model, noise, texts, policy, settings, end=end, observe=visits.append)
    assert latents.shape == noise.shape and torch.equal(latents[:, -1:], end)
    assert all(torch.equal(visit.latents[:, -1:], end) for visit in visits if visit.chunk == 2)
    other = run(model, noise, texts, policy, settings, end=-end)
    assert (other[:, 4:5] - latents[:, 4:5]).abs().max() > 1e-3  # the rest of its chunk leads to it
    moved = (other[:, :4] - latents[:, :4]).abs().max()
    assert moved > 1e-3 if policy is DENSE else moved < 1e-6  # chunks before know of it with full attention only


@pytest.mark.parametrize("policy", [OFF, SKIP, DENSE], ids=lambda policy: policy.name)
def test_start_and_end_in_one_chunk_and_after_a_prefix(model, policy):
    settings = replace(SETTINGS, chunk=3)
    noise, texts = given(6)
    image, end = torch.randn(4, 1, 4, 4), torch.randn(4, 1, 4, 4)
    latents = run(model, noise[:, :3], texts, policy, settings, prefix=image, end=end)
    assert torch.equal(latents[:, ::2], torch.cat([image, end], 1)) and not torch.equal(latents[:, 1], noise[:, 1])
    prefix, calm = torch.randn(4, 3, 4, 4), replace(settings, condition_noise=0.0)
    latents = run(model, noise, texts, policy, calm, prefix=prefix, end=end)
    assert latents.shape == (4, 3, 4, 4) and torch.equal(latents[:, -1:], end)


def test_prefix_chunks_condition_and_are_not_yielded(model):
    noise, texts = given(6)
    prefix, rows = torch.randn(4, 3, 4, 4), []  # one whole chunk, and one frame held in the next

    def noise_of(row):
        rows.append(row)
        torch.manual_seed(row)
        return torch.randn(4, 2, 4, 4)

    chunks = list(denoise(model, noise, texts, SETTINGS, OFF, prefix, noise_of))
    assert [chunk.index for chunk in chunks] == [1, 2] and torch.equal(chunks[0].latents[:, :1], prefix[:, 2:])
    assert sorted(set(rows)) == list(range(SETTINGS.steps + SETTINGS.ar_step))
    rows.clear()
    list(denoise(model, noise, texts, SETTINGS, KEEP, prefix, noise_of))
    assert rows == [0]


def test_clean_prefix_needs_no_noise(model):
    noise, texts = given(4)
    settings, visits = replace(SETTINGS, condition_noise=0.0), []
    prefix = torch.randn(4, 2, 4, 4)
    run(model, noise, texts, KEEP, settings, prefix=prefix, observe=visits.append)
    assert torch.equal(visits[0].latents, prefix) and visits[0].step == -1


def test_the_same_every_time_and_input_untouched(model):
    noise, texts = given(4)
    before = noise.clone()
    assert torch.equal(run(model, noise, texts, SKIP), run(model, noise, texts, SKIP))
    assert torch.equal(noise, before)


def test_not_finite_names_the_chunk(model):
    noise, texts = given(6)
    noise[:, 2:] = float("nan")
    chunks = denoise(model, noise, texts, SETTINGS, KEEP)
    assert next(chunks).index == 0
    with pytest.raises(NotFinite, match="chunk 1 .*NaN") as error:
        next(chunks)
    assert pickle.loads(pickle.dumps(error.value)).chunk == 1


@pytest.fixture
def unwritten_is_nan():
    """Whatever is read before it is written makes the result NaN, which the loop refuses."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("kv_update", ["stale", "refresh"])
@pytest.mark.parametrize("ready", [0, 1, 2])
@pytest.mark.parametrize("ar_step", [0, 1, 2, 5, 9])
def test_a_budget_of_clean_tokens(model, unwritten_is_nan, ar_step, ready, kv_update):
    noise, texts = given(2 * (ready + 4))
    settings = replace(SETTINGS, ar_step=ar_step)
    prefix = torch.randn(4, 2 * ready, 4, 4)
    call = {"prefix": prefix, "condition_noise_of": lambda row: torch.zeros_like(prefix)} if ready else {}
    everything = run(model, noise, texts, Policy("all", SKIP.reuse, kv_update), settings, **call)
    for clean, compression in ((1, None), (2, None), (1, Compression(kernel=3)), (6, None)):
        visits = []
        policy = Policy("budget", SKIP.reuse, kv_update, clean=clean, compression=compression)
        latents = run(model, noise, texts, policy, settings, observe=visits.append, **call)
        active = settings.steps if ar_step == 0 else -(-settings.steps // ar_step)
        assert max(visit.seen for visit in visits) <= 8 * (clean + active + 1)
        if clean == 6 and not ready:  # more than there ever are
            torch.testing.assert_close(latents, everything, atol=1e-5, rtol=0)


def test_capacity_is_bounded_however_long_the_window():
    settings = SamplerSettings(steps=50, shift=8.0, guidance=1.0, ar_step=10, chunk=5, fps=24)

    def capacity(chunks, clean):
        return settings.plan(5 * chunks, Policy("budget", None, "stale", clean=clean)).capacity

    assert [capacity(chunks, clean=2) for chunks in (8, 40)] == [7, 7]
    assert capacity(8, clean=8) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": torch.randn(4, 3, 4, 4)}, "nearest: 2 or 4"),
        ({"texts": Texts(torch.randn(1, 3, 8))}, "negative"),
        ({"prefix": torch.randn(4, 2, 4, 4)}, "condition_noise_of"),
        ({"prefix": torch.randn(4, 4, 4, 4)}, "leaves nothing"),
        ({"prefix": torch.randn(4, 3, 4, 4), "end": torch.randn(4, 1, 4, 4)}, "leaves nothing"),
        ({"end": torch.randn(4, 3, 4, 4)}, "longer than a chunk"),
    ],
)
def test_bad_calls_are_refused(model, change, message):
    noise, texts = given(4)
    call = {"noise": noise, "texts": texts, "settings": SETTINGS, "policy": OFF, **change}
    with pytest.raises(ValueError, match=message):
        next(denoise(model, **call))
