"""MAGI-1's walk where no golden run looks: time, memory, and each mend on its own."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatVelocity
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.families.settings import resolve_policy
from flowcache.models.base import Conditioning, Grid
from flowcache.records import ModelSpec
from flowcache.sampling.loop import Texts, denoise

BASE, DISTILLED = Pipeline(), Pipeline(passes=1, distilled=True)
OFF = Policy("off", kv_update="refresh")
SPEC = ModelSpec(
    "tiny", "magi", "path", "digest", chunk=2, window=8, overlap=2, channels=4, pipeline=BASE,
    reuse={"slow": {"threshold": 0.02, "ret_steps": 2, "coefficients": [1.0, 0.0]}},
)  # fmt: skip


def settings_of(steps=8, pipeline=DISTILLED, lag=None):
    return MagiSettings(steps, steps // pipeline.window if lag is None else lag, 2, 24, 7.5, pipeline)


class Steady:
    """A `VideoModel` whose velocity is 1 everywhere, and whose signal follows the latents."""

    dtype, device = torch.float32, torch.device("cpu")
    layers, heads, kv_heads, head_dim = 1, 2, 1, 4
    null_caption, timed_signal = torch.zeros(1, 1, 4), False

    def grid(self, latents, first_frame=0):
        return Grid(latents.shape[2], latents.shape[3], latents.shape[4], first_frame)

    def embed(self, latents):
        return latents.flatten(2).transpose(1, 2)

    def condition(self, timesteps, grid, fps, distill=None):
        return Conditioning(timesteps, timesteps, None)

    def text(self, embeddings):
        return embeddings

    def rope(self, *grids):
        return None

    def join(self, texts):
        return None

    def transform(self, tokens, conditioning, text, rope, attend):
        q, k = tokens[:, :, None].expand(-1, -1, 2, -1), tokens[:, :, None]
        attend(0, q, k, k)
        return tokens

    def project(self, tokens, conditioning, grid):
        return torch.ones(len(tokens), 4, grid.frames, grid.rows, grid.columns)

    def signal(self, conditioning, tokens, grid):
        return tokens


def run(model, chunks, policy, given=None, seed=0, prefix=None, **kwargs):
    torch.manual_seed(seed)
    noise, visits = torch.randn(4, 2 * chunks, 2, 2), []
    texts = Texts(torch.randn(1, 3, 4))
    found = list(denoise(model, noise, texts, given or settings_of(), policy, prefix, observe=visits.append, **kwargs))
    return torch.cat([chunk.latents for chunk in found], dim=1), noise, visits, found


OURS = st.fixed_dictionaries(
    {"name": st.just("flowcache")},
    optional={
        "threshold": st.floats(0, 100),
        "ret_steps": st.integers(0, 9),
        "last_step": st.booleans(),
        "refresh": st.booleans(),
        "near_clean": st.booleans(),
        "kv": st.sampled_from([{"keep": "recent", "chunks": 1}, {"keep": "compressed", "chunks": 2}]),
    },
)


@settings(deadline=None, max_examples=40)
@given(OURS, st.sampled_from([4, 8, 12, 16]), st.integers(1, 4), st.sampled_from([BASE, DISTILLED]))
def test_integrated_time_of_every_chunk_is_one(policy, steps, chunks, pipeline):
    """Where the velocity is 1, a chunk moves by the time that its steps, computed or not, cover."""
    latents, noise, _, _ = run(Steady(), chunks, resolve_policy(policy, SPEC), settings_of(steps, pipeline))
    for moved in (latents - noise).split(2, dim=1):
        assert moved.sub(1).abs().max() < 1e-6 + 4e-7  # what fp32 adds up to over the steps of latents up to 4


def test_increments_do_not_add_up_to_one():
    """As published: the last increment again, whatever the step's length."""
    policy = resolve_policy({"name": "paper", "threshold": 100, "ret_steps": 1}, SPEC)
    latents, noise, visits, _ = run(Steady(), 2, policy)
    assert any(not visit.decision.compute for visit in visits)
    assert (latents - noise).max() < 0.9
    mended = resolve_policy({"name": "flowcache", "threshold": 100, "ret_steps": 1}, SPEC)
    unmended = resolve_policy({"name": "flowcache", "threshold": 100, "ret_steps": 1, "velocity": False}, SPEC)
    assert (run(Steady(), 2, mended)[0] - noise).sub(1).abs().max() < 2e-6
    assert (run(Steady(), 2, unmended)[0] - noise).max() < 0.9


def test_own_last_step():
    for last_step, expected in ((True, {True}), (False, {True, False})):
        policy = resolve_policy({"name": "flowcache", "threshold": 100, "last_step": last_step}, SPEC)
        visits = run(Steady(), 3, policy)[2]
        assert {visit.decision.compute for visit in visits if visit.step == 7} == expected


@pytest.mark.parametrize("policy", [{"name": "paper"}, {"name": "flowcache", "near_clean": False, "refresh": False}])
def test_what_the_published_policy_drops(policy):
    both, neither = (run(Steady(), 3, resolve_policy(each, SPEC))[2] for each in ({"name": "off"}, policy))
    assert [visit.chunk for visit in both if visit.step < 0] == [0, 1]  # nothing follows the last one
    assert {visit.step for visit in both if visit.branch == 1} == {6, 7}
    assert not [visit for visit in neither if visit.step < 0 or visit.branch == 1]


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = MagiConfig(
        dim=32,
        ffn_dim=64,
        heads=8,
        kv_heads=2,
        head_dim=8,
        layers=2,
        channels=4,
        text_dim=4,
        text_len=60,
        condition_dim=16,
    )
    return MagiTransformer(config).requires_grad_(False)


@pytest.fixture
def unwritten_is_nan():
    """Whatever is read before it is written makes the result NaN, which the loop refuses."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("pipeline", [BASE, DISTILLED, replace(BASE, kv_ranges=())], ids=["base", "distilled", "all"])
@pytest.mark.parametrize("ready", [0, 3])
@pytest.mark.parametrize("cut", ["before", "after"])
def test_any_budget_goes_with_prefixes_and_guidance(model, unwritten_is_nan, pipeline, ready, cut):
    """Memory is the budget, the chunks in flight and no more, however long the window."""
    for clean, compression in (
        (2, Compression(kernel=3)),
        (1, Compression(by="frame", kernel=3)),
        (9, None),
    ):
        policy = Policy(
            "budget", Reuse(0.05, 1, (1.0, 0.0)), "stale" if cut == "after" else "refresh",
            clean=clean, compression=compression, cache=CacheOf(RepeatVelocity), cut=cut,
        )  # fmt: skip
        room = []
        for chunks in (7, 9):
            prefix = torch.randn(4, 2 * ready, 2, 2) if ready else None
            found = run(model, ready + chunks, policy, settings_of(4, pipeline), prefix=prefix)
            room.append(found[3][-1].kv_bytes // chunk_bytes(model))
            assert max(visit.seen for visit in found[2]) <= room[-1] * 2
        assert clean == 9 or room[0] == room[1] <= clean + 5


@settings(max_examples=200)
@given(
    st.builds(Pipeline, window=st.integers(1, 4), passes=st.sampled_from([1, 3])),
    st.integers(3, 9), st.integers(0, 10), st.integers(1, 9), st.integers(0, 2), st.integers(1, 3),
    st.sampled_from(["before", "after"]), st.sampled_from(["stale", "refresh"]),
)  # fmt: skip
def test_what_scores_chose_is_not_written_over(pipeline, steps, lag, chunks, ready, clean, cut, update):
    """A chunk that was cut has its tokens anywhere among those kept: to write its K/V anew would destroy others'."""
    policy = Policy("budget", kv_update=update, clean=clean, compression=Compression(), cut=cut)
    plan = settings_of(steps, pipeline, lag).plan(2 * (ready + chunks), policy, 2 * ready)
    done = 0  # chunks that were cut
    for row in plan.rows:
        for forward in (forward for forward in row.forwards if forward.kv_branch is not None):
            assert forward.chunk >= done, (row, forward)
            done = max(done, finished if (finished := min(row.clean, forward.chunk)) > clean else 0)


def chunk_bytes(model):
    return 2 * model.layers * 2 * model.kv_heads * model.head_dim * 4


def test_a_refreshed_chunk_sees_itself_whatever_is_kept():
    rows = settings_of().plan(12, Policy("budget", kv_update="refresh", clean=2)).rows
    forwards = [forward for row in rows for forward in row.forwards]
    assert {forward.first for forward in forwards if forward.step >= 0 and forward.kv_branch == 0} == {0}
    assert all(forward.first == forward.chunk for forward in forwards if forward.step < 0)


def test_twelve_steps_know_their_lengths_however_far_apart_chunks_are():
    for lag in (0, 3, 12, 1000):
        rows = settings_of(12, lag=lag).plan(6, OFF).rows
        assert [row.distill for row in rows[:3]] == [4, 8, 8] and {row.distill for row in rows} == {4, 8}


def test_ranges_bound_the_memory_too(model):
    room = [run(model, chunks, OFF)[3][-1].kv_bytes // chunk_bytes(model) for chunks in (6, 11)]
    assert room == [5, 5]
    everything = settings_of(pipeline=replace(DISTILLED, kv_ranges=()))
    assert run(model, 9, OFF, everything)[3][-1].kv_bytes == 9 * chunk_bytes(model)


def test_a_budget_that_is_never_reached_changes_nothing(model):
    everything = settings_of(pipeline=replace(DISTILLED, kv_ranges=()))
    policy = Policy("budget", kv_update="refresh", clean=9, compression=Compression())
    expected = run(model, 5, OFF, everything)[0]
    torch.testing.assert_close(run(model, 5, policy, everything)[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("pipeline", [BASE, DISTILLED], ids=["base", "distilled"])
def test_chunks_know_nothing_of_later_ones(model, pipeline):
    torch.manual_seed(3)
    noise, texts = torch.randn(4, 10, 2, 2), Texts(torch.randn(1, 3, 4))
    long, short = (
        torch.cat([c.latents for c in denoise(model, noise[:, :frames], texts, settings_of(8, pipeline), OFF)], dim=1)
        for frames in (10, 6)
    )
    torch.testing.assert_close(long[:, :6], short, atol=1e-5, rtol=0)


def test_a_clean_chunk_is_remembered_as_its_prefix_would_be(model):
    """A segment that begins with clean latents sees what the chunks of one walk see of finished ones."""
    alone = settings_of(8, lag=8)  # one chunk after the other
    whole, noise, _, _ = run(model, 3, OFF, alone)
    texts = Texts(torch.zeros(1, 3, 4))
    torch.manual_seed(0)
    noise = torch.randn(4, 6, 2, 2)
    texts = Texts(torch.randn(1, 3, 4))
    parts = list(denoise(model, noise, texts, alone, OFF, whole[:, :4]))
    torch.testing.assert_close(parts[0].latents, whole[:, 4:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("held", [1, 3])
def test_given_frames_stay(model, held):
    prefix = torch.randn(4, held, 2, 2)
    latents, _, visits, found = run(model, 3, OFF, prefix=prefix)
    first = found[0].index * 2
    assert torch.equal(latents[:, : held - first], prefix[:, first:])
    assert all(
        torch.equal(v.latents[:, : held - first], prefix[:, first:]) for v in visits if v.chunk == found[0].index
    )


def test_a_caption_for_each_chunk(model):
    torch.manual_seed(0)
    noise, told = torch.randn(4, 6, 2, 2), [torch.randn(1, length, 4) for length in (1, 5, 3)]

    def latents(captions):
        return torch.cat([chunk.latents for chunk in denoise(model, noise, Texts(captions), settings_of(), OFF)], dim=1)

    same, other = latents(told), latents([*told[:2], None])
    assert torch.equal(same[:, :4], other[:, :4]) and (same[:, 4:] - other[:, 4:]).abs().max() > 1e-4
    with pytest.raises(ValueError, match="2 captions for a window of 3 chunks"):
        latents(told[:2])


@pytest.mark.parametrize("policy", [Policy("dense", attention="full"), Policy("x", Reuse(1, 1, (1.0,)), "stale")])
def test_policies_of_other_families_are_refused(policy):
    with pytest.raises(ValueError, match="accepted: off, paper, flowcache"):
        settings_of().plan(8, policy)
