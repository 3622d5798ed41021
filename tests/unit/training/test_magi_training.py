"""What `tiny-magi` is trained on is what MAGI-1's pipeline shows it."""

import math
from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.bench.shapes import WORLD, vocabulary
from flowcache.families.codecs import PatchCodec
from flowcache.models.attention import attention
from training.codec import CHANNELS
from training.magi.data import CHUNK, LENGTHS, Windows, choose, draw, encoded, together
from training.magi.loss import loss_of, masks
from training.magi.model import Tiny
from training.magi.noise import (
    CLEAN,
    LAST,
    STAGES,
    USUAL,
    Rows,
    Shares,
    importance,
    sample_levels,
    sample_rows,
    shifted,
    time_of,
)
from training.magi.window import caption_embeddings, conditions, velocity
from training.scenes import Mix
from training.text import build_tokenizer


def rows_of(*kinds: str, given: int = 0) -> Rows:
    """A row for each of "text", "clean", "dropped", "alone"."""
    clean, dropped, alone = (torch.tensor([kind in names for kind in kinds])
                             for names in (("clean",), ("dropped", "alone"), ("alone",)))  # fmt: skip
    return Rows(clean, dropped, alone, torch.full((len(kinds),), given))


@given(st.integers(0, 10**6), st.integers(1, 5))
@settings(deadline=None)
def test_levels(seed, chunks):
    generator = torch.Generator().manual_seed(seed)
    rows = sample_rows(64, chunks, CHUNK, generator)
    levels, weights = sample_levels(rows, chunks, generator)
    assert levels.shape == weights.shape == (64, chunks) and (chunks > 1 or (weights == 1).all())
    assert (levels[rows.clean, 0] == CLEAN).all()
    noisy = levels[~rows.clean] if chunks <= STAGES else levels[:, 1:]
    assert levels.min() >= 0 and noisy.max() <= LAST
    assert chunks <= STAGES or (rows.clean | rows.alone).all()
    assert not (rows.clean & rows.alone).any() and not (rows.alone & ~rows.dropped).any()
    assert (rows.given < CHUNK).all()


def test_most_windows_stand_on_the_staircase():
    generator = torch.Generator().manual_seed(0)
    rows = rows_of(*["text"] * 400)
    levels, weights = sample_levels(rows, STAGES, generator)
    assert (
        weights[weights != 1].numel() and (weights - importance(levels) / USUAL)[weights[:, 0] != 1].abs().max() < 1e-6
    )
    fell = (levels.diff(dim=1) < 0).all(1).float().mean()
    assert 0.7 < fell < 0.85  # and some of the independent ones by chance
    bounds = time_of(torch.arange(STAGES + 1) / STAGES)
    stage = torch.bucketize(levels, bounds)
    assert (stage == torch.arange(STAGES, 0, -1)).all(1).float().mean() > 0.65


def test_time_of_is_the_published_grid():
    published = [0, 0.021739130839705467, 0.10000000894069672, 0.30000001192092896, 1.0000001192092896]
    assert torch.allclose(time_of(torch.linspace(0, 1, 5)), torch.tensor(published), atol=1e-6)


def test_the_weight_is_one_over_the_staircase():
    levels = time_of(torch.linspace(0, 1, 10_001)).clamp(max=LAST)
    assert importance(levels).mean() == pytest.approx(USUAL, abs=0.05)


def test_single_windows_have_the_shift():
    levels, weights = sample_levels(rows_of(*["text"] * 4000), 1, torch.Generator().manual_seed(0))
    assert levels.median() == pytest.approx(float(shifted(torch.tensor(0.5))), abs=0.02) and (weights == 1).all()


@pytest.mark.parametrize("length", LENGTHS)
def test_rows_follow_from_the_seed_alone(length):
    codec = PatchCodec(CHANNELS, causal=False)
    one, other = (windows_of(length, codec, seeds) for seeds in (range(3), reversed(range(3))))
    frames, chunks = LENGTHS[length].frames, LENGTHS[length].chunks
    for name in ("latents", "shown", "noise", "levels", "weights"):
        assert torch.equal(getattr(one, name), getattr(other, name).flip(0)), name
    assert one.latents.shape == (3, CHANNELS, frames, 8, 8)
    assert len(one.captions) == len(one.remaining) == 3 * chunks
    assert one.captions[:chunks] == other.captions[-chunks:]


def windows_of(length: str, codec: PatchCodec, seeds: Iterable[int], **shares: float) -> Windows:
    return together([draw(LENGTHS[length], Mix(WORLD), Shares(**shares), codec, Random(seed)) for seed in seeds])


def test_only_what_is_given_is_shown_otherwise():
    windows = windows_of("2", PatchCodec(CHANNELS, causal=False), range(30), still=1)
    apart = (windows.latents != windows.shown).flatten(3).any(3).any(1)
    start = windows.rows.clean.long() * CHUNK
    assert apart.any() and all(not row.any() or row.nonzero().flatten().tolist() == [at]
                               for row, at in zip(apart, start.tolist(), strict=True))  # fmt: skip


@pytest.mark.parametrize("clean", [False, True])
def test_shots_change_their_motion_at_a_chunk(clean):
    codec, rng, length = PatchCodec(CHANNELS, causal=False), Random(0), LENGTHS["3"]
    parts = [choose(length, clean, Mix(WORLD), Shares(changed=1), codec, rng) for _ in range(50)]
    assert {part.change for part in parts} == {1, 2}  # behind an unfinished chunk too
    assert all(part.begin == 0 and part.scene.before not in (None, part.scene.motion) for part in parts)


def test_later_parts_of_a_video_are_its_end():
    codec, length = PatchCodec(CHANNELS, causal=False), LENGTHS["1"]
    part = choose(LENGTHS["2"], True, Mix(WORLD), Shares(changed=0, later=1), codec, Random(1))
    assert part.begin and part.scene.before is None
    from_start = encoded(replace(part, begin=0), LENGTHS["5"], codec)[0]
    shown = encoded(part, length, codec)[0]
    assert torch.allclose(shown, from_start[:, :, part.begin * CHUNK : (part.begin + 1) * CHUNK], atol=1e-4)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    tokenizer = build_tokenizer(vocabulary())
    model = Tiny(len(tokenizer))
    torch.nn.init.normal_(model.transformer.final_linear.linear.weight, std=0.1)
    return model.requires_grad_(False), tokenizer


@pytest.mark.parametrize("kind", ["text", "clean", "dropped", "alone"])
def test_a_window_is_its_chunks_one_after_the_other(tiny, kind):
    """Each chunk by the interface that the sampler has, with the K/V of those before it."""
    model, tokenizer = tiny
    transformer, rows, chunks = model.transformer, rows_of(kind), 3
    windows = replace(windows_of("3", PatchCodec(CHANNELS, causal=False), [1]), rows=rows)
    levels, _ = sample_levels(rows, chunks, torch.Generator().manual_seed(1))
    noisy = torch.randn(windows.latents.shape, generator=torch.Generator().manual_seed(2))
    text = conditions(model, tokenizer, windows)
    together = velocity(transformer, noisy, levels, text, rows.alone)
    embeddings, there = caption_embeddings(model, tokenizer, windows.captions, windows.remaining)
    past: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def attend(layer, q, k, v):
        if layer in past and kind != "alone":
            k, v = (torch.cat(pair, 1) for pair in zip(past[layer], (k, v), strict=True))
        past[layer] = k, v
        return attention(q, k, v)

    for chunk in range(chunks):
        dropped = kind in ("dropped", "alone") or (kind == "clean" and chunk == 0)
        words = transformer.text(None if dropped else embeddings[chunk : chunk + 1, there[chunk]])
        part = noisy[:, :, chunk * CHUNK : (chunk + 1) * CHUNK]
        grid = transformer.grid(part, 0 if kind == "alone" else chunk * CHUNK)
        condition = transformer.condition(levels[:, chunk, None].expand(-1, CHUNK) * 1000, grid)
        tokens = transformer.transform(transformer.embed(part), condition, [words], [transformer.rope(grid)], attend)
        alone = transformer.project(tokens, condition, grid)
        assert torch.allclose(alone, together[:, :, chunk * CHUNK : (chunk + 1) * CHUNK], atol=1e-4)


@pytest.mark.parametrize("kind", ["text", "clean"])
def test_what_is_given_is_not_learned(kind):
    given_, finished = masks(rows_of(kind, given=2), 2, CHUNK)
    start = CHUNK if kind == "clean" else 0
    assert given_[0].nonzero().flatten().tolist() == [start, start + 1]
    assert finished[0].sum() == start


def test_loss_falls_and_every_parameter_learns():
    torch.manual_seed(0)
    tokenizer = build_tokenizer(vocabulary())
    model, codec = Tiny(len(tokenizer)), PatchCodec(CHANNELS, causal=False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    windows, losses = windows_of("2", codec, range(3)), []
    windows = replace(windows, rows=rows_of("text", "clean", "dropped"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(8):
        total, count = loss_of(model, tokenizer, windows)
        loss = total / count
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0] and math.isfinite(losses[-1])
    for name, value in model.named_parameters():
        assert not torch.equal(value, before[name]), name
