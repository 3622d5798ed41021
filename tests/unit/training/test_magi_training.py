"""What `tiny-magi` is trained on is what MAGI-1's pipeline shows it."""

import math
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.families.codecs import PatchCodec
from flowcache.models.attention import attention
from training.codec import CHANNELS
from training.magi.data import CHUNK, draw_windows
from training.magi.loss import loss_of, masks
from training.magi.model import Tiny
from training.magi.noise import CLEAN, LAST, STAGES, Rows, sample_levels, sample_rows, time_of
from training.magi.window import caption_embeddings, conditions, velocity
from training.shapes import vocabulary
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
    levels = sample_levels(rows, chunks, generator)
    assert levels.shape == (64, chunks)
    assert (levels[rows.clean, 0] == CLEAN).all()
    noisy = levels[~rows.clean] if chunks <= STAGES else levels[:, 1:]
    assert levels.min() >= 0 and noisy.max() <= LAST
    assert chunks <= STAGES or (rows.clean | rows.alone).all()
    assert not (rows.clean & rows.alone).any() and not (rows.alone & ~rows.dropped).any()
    assert (rows.given < CHUNK).all()


def test_most_windows_stand_on_the_staircase():
    generator = torch.Generator().manual_seed(0)
    rows = rows_of(*["text"] * 400)
    levels = sample_levels(rows, STAGES, generator)
    fell = (levels.diff(dim=1) < 0).all(1).float().mean()
    assert 0.7 < fell < 0.85  # and some of the independent ones by chance
    bounds = time_of(torch.arange(STAGES + 1) / STAGES)
    stage = torch.bucketize(levels, bounds)
    assert (stage == torch.arange(STAGES, 0, -1)).all(1).float().mean() > 0.65


def test_time_of_is_the_published_grid():
    published = [0, 0.021739130839705467, 0.10000000894069672, 0.30000001192092896, 1.0000001192092896]
    assert torch.allclose(time_of(torch.linspace(0, 1, 5)), torch.tensor(published), atol=1e-6)


def test_windows_follow_from_the_seed():
    codec, rows = PatchCodec(CHANNELS, causal=False), rows_of("text", "clean", given=1)
    one, again = (draw_windows(rows, 2, Random(3), codec) for _ in range(2))
    assert torch.equal(one.latents, again.latents) and one.captions == again.captions
    assert one.latents.shape == (2, CHANNELS, 2 * CHUNK, 8, 8) and len(one.captions) == len(one.remaining) == 4
    apart = (one.latents != one.shown).flatten(1, 1).any(1).flatten(2).any(2)
    assert not apart[0, 1:].any() and not apart[1, :CHUNK].any() and not apart[1, CHUNK + 1 :].any()


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
    windows = draw_windows(rows, chunks, Random(1), PatchCodec(CHANNELS, causal=False))
    levels = sample_levels(rows, chunks, torch.Generator().manual_seed(1))
    noisy = torch.randn(windows.latents.shape, generator=torch.Generator().manual_seed(2))
    text = conditions(model, tokenizer, windows, rows)
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
    given_, finished = masks(rows_of(kind, given=2), 2)
    start = CHUNK if kind == "clean" else 0
    assert given_[0].nonzero().flatten().tolist() == [start, start + 1]
    assert finished[0].sum() == start


def test_loss_falls_and_every_parameter_learns():
    torch.manual_seed(0)
    tokenizer = build_tokenizer(vocabulary())
    model, codec = Tiny(len(tokenizer)), PatchCodec(CHANNELS, causal=False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    rows = rows_of("text", "clean", "dropped")
    windows, losses = draw_windows(rows, 2, Random(0), codec), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(8):
        loss = loss_of(model, tokenizer, windows, rows, torch.ones(CHANNELS), torch.Generator().manual_seed(1))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0] and math.isfinite(losses[-1])
    for name, value in model.named_parameters():
        assert not torch.equal(value, before[name]), name
