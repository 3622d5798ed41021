"""Euler, and UniPC (arXiv 2302.04867) for flow matching: order 2, B(h) = expm1(h), predicting x0.

The same numbers as SkyReels-V2's FlowUniPCMultistepScheduler, cut differently: all coefficients depend on
the sigmas alone and are computed once; what remains of a step is a function of tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ORDER = 2
Noise = Callable[[], Tensor]


def sigmas(steps: int, shift: float) -> Tensor:
    """Noise levels [steps + 1], the last one zero; shift > 1 spends more steps at high noise."""
    highest = torch.tensor(0.999).double()  # the official code rounds it to fp32 on its way
    even = torch.linspace(highest, 0, steps + 1, dtype=torch.float64)[:-1]
    shifted = shift * even / (1 + (shift - 1) * even)
    return torch.cat([shifted, shifted.new_zeros(1)]).float()


def timesteps(levels: Tensor) -> tuple[int, ...]:
    """What the model is told at each noise level: whole numbers in 0..999, the final zero left out."""
    return tuple(int(level) for level in levels[:-1] * 1000)


@dataclass(frozen=True)
class Coefficients:
    """x_t = keep * x - move * m0 - bend * (older * (m1 - m0) / ratio + newer * (m_t - m0)).

    m0, m1: the newest and the second newest x0 prediction at s; m_t: that at t, known to the corrector only.
    """

    keep: float
    move: float
    bend: float
    ratio: float = 1.0
    older: float = 0.0
    newer: float = 0.0

    def apply(self, x: Tensor, outputs: tuple[Tensor, ...], at_t: Tensor | None = None) -> Tensor:
        m0 = outputs[-1]
        result = self.keep * x - self.move * m0
        slope = None
        if self.older:
            slope = self.older * ((outputs[-2] - m0) / self.ratio)
        if at_t is not None:
            newer = self.newer * (at_t - m0)
            slope = newer if slope is None else slope + newer
        return result if slope is None else result - self.bend * slope


@dataclass(frozen=True)
class SolverState:
    """What a chunk carries from one step to the next."""

    sample: Tensor | None = None  # input of the last step, corrected
    outputs: tuple[Tensor, ...] = ()  # x0 predictions of the last steps, newest last


class UniPC:
    """The solver of one noise schedule; it holds no sample, each chunk has its own `SolverState`.

    overwritten: the official denoise loop writes latents in place, over the very tensor that its solver remembers
    from the first step. So its first correction starts from that step's result instead of its input. Needed to
    sample as published: the noise levels of that program, its own or those of more steps; None: the solver is the
    scheduler on its own.
    """

    start = SolverState()

    def __init__(self, levels: Tensor, overwritten: Tensor | None = None):
        self.noise_levels, self.levels, self.overwritten = levels, levels.tolist(), overwritten
        self.overwrites = None if overwritten is None else _coefficients(overwritten, 0, 1, corrects=False)
        steps = len(self.levels) - 1
        # The first and the last step have fewer predictions to look back on or ahead to.
        orders = [min(ORDER, i + 1, steps - i) for i in range(steps)]
        self.predictors = [_coefficients(levels, i, orders[i], corrects=False) for i in range(steps)]
        self.correctors = [_coefficients(levels, i, orders[i], corrects=True) for i in range(steps - 1)]

    def over(self, computed: tuple[int, ...]) -> "UniPC":
        """That stands at these levels alone, and at the end."""
        return UniPC(self.noise_levels[[*computed, -1]], self.overwritten)

    @property
    def carried(self) -> tuple[float, ...]:
        return tuple(self.levels[0] - level for level in self.levels)

    def step(
        self, index: int, velocity: Tensor, sample: Tensor, state: SolverState, noise: Noise | None = None
    ) -> tuple[Tensor, SolverState]:
        """From noise level `index` to the next, given the model's velocity at `sample`."""
        x0 = sample - self.levels[index] * velocity
        if index > 0:
            if state.sample is None:
                raise ValueError(f"step {index} needs the state that step {index - 1} left")
            sample = self.correctors[index - 1].apply(state.sample, state.outputs, x0)
        outputs = (*state.outputs, x0)[-ORDER:]
        result = self.predictors[index].apply(sample, outputs)
        if index == 0 and self.overwrites:
            sample = self.overwrites.apply(sample, outputs)
        return result, SolverState(sample, outputs)


@dataclass(frozen=True)
class Euler:
    """Straight steps over `times`, which grow; it needs to remember nothing."""

    times: tuple[float, ...]
    start: None = None

    def over(self, computed: tuple[int, ...]) -> "Euler":
        """That stands at these times alone, and at the end."""
        return Euler(tuple(self.times[index] for index in (*computed, -1)))

    @property
    def carried(self) -> tuple[float, ...]:
        return tuple(time - self.times[0] for time in self.times)

    def step(
        self, index: int, velocity: Tensor, sample: Tensor, state: None = None, noise: Noise | None = None
    ) -> tuple[Tensor, None]:
        """From time `index` to the next, given the model's velocity at `sample`."""
        return sample + velocity * (self.times[index + 1] - self.times[index]), None


def _coefficients(levels: Tensor, i: int, order: int, corrects: bool) -> Coefficients:
    """From level i to i + 1, in the fp32 arithmetic of the official code."""
    alpha = 1 - levels
    log_snr = torch.log(alpha) - torch.log(levels)
    h = log_snr[i + 1] - log_snr[i]
    phi = torch.expm1(-h)
    keep, move = levels[i + 1] / levels[i], alpha[i + 1] * phi
    if order == 1:
        return Coefficients(float(keep), float(move), float(move), newer=0.5)
    ratio = (log_snr[i - 1] - log_snr[i]) / h
    older, newer = _weights(-h, phi, ratio) if corrects else (0.5, 0.0)
    return Coefficients(float(keep), float(move), float(move), float(ratio), older, newer)


def _weights(h: Tensor, phi: Tensor, ratio: Tensor) -> tuple[float, float]:
    """Solve for the corrector's weights of the two slopes (equation 9 of the paper, p = 2)."""
    first = phi / h - 1
    second = first / h - 0.5
    matrix = torch.stack([torch.ones(2), torch.stack([ratio, torch.ones_like(ratio)])])
    older, newer = torch.linalg.solve(matrix, torch.stack([first / phi, second * 2 / phi])).tolist()
    return older, newer
