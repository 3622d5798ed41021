"""The staggered chunk x step grid of autoregressive diffusion, in closed form.

Row r updates chunk c at step r - lag * (c - ready): every chunk takes the same steps, `lag` rows after
the chunk before it. Equals SkyReels-V2's `generate_timestep_matrix`.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One row of the grid; each tuple has one entry per chunk.

    `index`: 0 before the chunk starts, k while it takes its k-th step, steps + 1 once it is finished.
    `window`: the chunks (from, to) that a model of limited length sees in this row.
    """

    index: tuple[int, ...]
    timesteps: tuple[int, ...]
    update: tuple[bool, ...]
    window: tuple[int, int]


def whole_chunks(frames: int, chunk: int) -> int:
    """How many chunks `frames` latent frames make; ValueError naming the nearest lengths where there is a rest."""
    if frames < 1 or frames % chunk:
        below = frames // chunk * chunk
        nearest = f"{below} or {below + chunk}" if below > 0 else str(chunk)
        raise ValueError(f"{frames} latent frames are not a whole number of chunks of {chunk}; nearest: {nearest}")
    return frames // chunk


def schedule(
    frames: int, chunk: int, timesteps: Sequence[int], ar_step: int, ready: int = 0, base: int | None = None
) -> tuple[Row, ...]:
    """The grid for `frames` latent frames in chunks of `chunk`.

    timesteps: of the steps 1..N. ar_step: rows between the starts of neighbouring chunks; 0: all together.
    ready: latent frames at the front that are given (only whole chunks of them count).
    base: latent frames that the model sees at once; a longer video needs ar_step >= steps / (base // chunk).
    """
    chunks, steps, first = whole_chunks(frames, chunk), len(timesteps), ready // chunk
    seen = chunks if base is None else base // chunk
    if seen < chunks and ar_step * seen < steps:
        raise ValueError(f"ar_step {ar_step} is too short for windows of {seen} chunks; at least {-(-steps // seen)}")
    lag = min(ar_step, steps)
    template = (999, *timesteps, 0)
    rows, end = [], seen
    for r in range(steps + lag * (chunks - first - 1) if first < chunks else 0):
        index = tuple(
            steps + 1 if c < first else min(max(r - lag * (c - first) + 1, 0), steps + 1) for c in range(chunks)
        )
        update = tuple(0 < k <= steps for k in index)
        if end < chunks and update[end]:
            end += 1
        rows.append(Row(index, tuple(template[k] for k in index), update, (max(end - seen, 0), min(end, chunks))))
    return tuple(rows)
