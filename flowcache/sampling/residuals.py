"""What the jumps of a fixed schedule leave out, as far as the next computed step shows it.

The residual of a jump is half its length times how far the velocity at its end is from where those at the two computed
steps before lead to in a straight line (before the first of them: from the one), over the latents' size. So it is the
difference that the jump makes by the second order's two formulas, Adams-Bashforth's, which knows no end, and the
trapezoid's: 0 where the velocity changes evenly with time, and larger the more its path bends.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

DIGITS = 4  # that are kept: the others are rounding's
TINY = 1e-12


@dataclass
class Residuals:
    """Of a window's chunks. carried: `plan.Timed.carried` of chunk 0's schedule and of the others'; empty: nothing is
    looked at."""

    carried: tuple[tuple[float, ...], ...]
    _guided: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)  # by chunk the last two, the newest first
    _found: dict[int, list[Tensor]] = field(default_factory=dict)  # by chunk, on its device: nobody waits for it

    def see(self, chunk: int, place: int, guided: Tensor, latents: Tensor) -> None:
        """The guided velocity at the latents of a computed step; place: its number among these."""
        carried = self.carried[min(chunk, 1)] if self.carried else ()
        if not carried:
            return
        before = self._guided.get(chunk, ())
        if before:
            length, last = carried[place] - carried[place - 1], before[0]
            expected = last
            if len(before) > 1:
                expected = last + length / (carried[place - 1] - carried[place - 2]) * (last - before[1])
            bend = torch.linalg.vector_norm(guided - expected, dtype=torch.float64)
            size = torch.linalg.vector_norm(latents, dtype=torch.float64).clamp_min(TINY)
            self._found.setdefault(chunk, []).append(abs(length) / 2 * bend / size)
        self._guided[chunk] = (guided, *before)[:2]

    def read(self, chunk: int, total: Callable[[Tensor], Tensor]) -> tuple[float, ...]:
        """Of the chunk's jumps from one computed step to the next, which are forgotten; total: see `KVSharding`.

        All ranks have the same latents whole. What they found is averaged, so that they decide alike to the last bit.
        """
        found = self._found.pop(chunk, [])
        self._guided.pop(chunk, None)
        if not found:
            return ()
        together = total(torch.stack([*found, torch.ones_like(found[0])]))
        return tuple(float(f"{each:.{DIGITS}g}") for each in (together[:-1] / together[-1]).tolist())
