"""A budget of chunk forwards, as plain data: which steps every chunk computes, and what was fitted to join them."""

from dataclasses import dataclass
from typing import Literal, get_args

LATENTS = 5  # of a chunk, in float32: velocities of up to three passes and two guided ones are kept where it is fitted


@dataclass(frozen=True)
class Conditions:
    """What fitted coefficients hold for. lag: rows between the starts of neighbouring chunks; chunk: latent frames.

    guidance: of a model that is distilled, what takes its place.
    """

    steps: int
    shift: float
    guidance: float
    lag: int
    chunk: int


@dataclass(frozen=True)
class Calibration:
    """Fitted on a checkpoint under `conditions`, at `budget`.

    computed: steps, from 0 on. first, later: what `sampling.calibrated.Calibrated` adds after each of them, in a
    window's chunk 0 and in all others; an empty one adds nothing.
    """

    budget: float
    conditions: Conditions
    computed: tuple[int, ...]
    first: tuple[tuple[float, ...], ...]
    later: tuple[tuple[float, ...], ...]


Solver = Literal["own", "adams-bashforth"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)


@dataclass(frozen=True)
class FewerSteps:
    """A run of so many steps: measured on a checkpoint under `conditions`, no other is closer within `budget`.

    lag: its own, in rows. solver: the family's own, or where that is Euler's one of second order.
    """

    budget: float
    conditions: Conditions
    steps: int
    lag: int
    solver: Solver = "own"


Preset = Calibration | FewerSteps


@dataclass(frozen=True)
class FixedSteps:
    """So many steps of every chunk, always the same ones, that a whole window takes at most the share `budget` of the
    unaccelerated model's chunk forwards; one at least.

    No rank can disagree, and costs are exact before the start. Where nothing was calibrated it is a run of fewer steps.
    """

    budget: float
    calibrations: tuple[Preset, ...] = ()

    def calibration(self, at: Conditions) -> Preset | None:
        """That of the budget, else of the next smaller one: closer than fewer steps there, and those gain little by a
        few more."""
        fits = (each for each in self.calibrations if each.budget <= self.budget and each.conditions == at)
        return max(fits, key=lambda each: each.budget, default=None)

    def held(self, latents: int) -> int:
        """Bytes that a chunk keeps at its most; latents: bytes of its own."""
        return LATENTS * latents if any(isinstance(each, Calibration) for each in self.calibrations) else 0
