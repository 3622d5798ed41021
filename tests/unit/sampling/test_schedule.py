"""Invariants of the staggered grid, whatever its settings."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.sampling.schedule import schedule, whole_chunks
from flowcache.sampling.solver import sigmas, timesteps


@st.composite
def grids(draw):
    chunk, chunks, steps = draw(st.integers(1, 6)), draw(st.integers(1, 7)), draw(st.integers(1, 30))
    ready = draw(st.integers(0, chunks - 1)) * chunk + draw(st.integers(0, chunk - 1))
    ar_step = draw(st.integers(0, 35))
    rows = schedule(chunk * chunks, chunk, timesteps(sigmas(steps, 8.0)), ar_step, ready)
    return rows, chunks, steps, ready // chunk, min(ar_step, steps)


@settings(deadline=None)
@given(grids())
def test_every_chunk_takes_each_step_once_and_in_order(grid):
    rows, chunks, steps, first, _ = grid
    for chunk in range(chunks):
        taken = [row.index[chunk] for row in rows if row.update[chunk]]
        assert taken == ([] if chunk < first else list(range(1, steps + 1)))
        assert all(a.index[chunk] <= b.index[chunk] for a, b in zip(rows, rows[1:], strict=False))


@settings(deadline=None)
@given(grids())
def test_a_chunk_lags_behind_the_one_before(grid):
    rows, chunks, steps, first, lag = grid
    began = [next(r for r, row in enumerate(rows) if row.update[chunk]) for chunk in range(first, chunks)]
    assert began == [lag * i for i in range(chunks - first)]
    assert len(rows) == steps + lag * (chunks - first - 1)
    assert all(any(row.update) for row in rows)


@settings(deadline=None)
@given(grids())
def test_timesteps_fall_and_end_at_zero(grid):
    rows, chunks, steps, first, _ = grid
    for row in rows:
        assert list(row.timesteps) == sorted(row.timesteps)  # earlier chunks are never noisier
        assert all((t == 0) == (index > steps) for t, index in zip(row.timesteps, row.index, strict=True))
        assert row.window == (0, chunks)


def test_lengths_that_are_no_whole_chunks_are_refused():
    assert whole_chunks(15, 5) == 3
    with pytest.raises(ValueError, match="12 latent frames .* chunks of 5; nearest: 10 or 15"):
        schedule(12, 5, [999], 0)
    with pytest.raises(ValueError, match="nearest: 5$"):
        whole_chunks(3, 5)


def test_a_long_video_needs_enough_lag():
    with pytest.raises(ValueError, match="at least 2"):
        schedule(50, 5, range(10), 1, base=25)
