"""A budget of chunk forwards, as plain data: which steps every chunk computes, and what was fitted to join them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

GUIDED = 2  # latents of a chunk, in float32, that are kept: its last guided velocities,
LATENTS = 3 + GUIDED  # and where it is fitted those of up to three passes
ROUNDING = 1e-6  # a residual that is no larger is nothing but that of float32
WEAKEST, STRONGEST = 0.6, 2.0  # times the fit's guidance: between them it was measured to be closer than fewer steps


Target = Literal["off", "converged"]
TARGETS: tuple[Target, ...] = get_args(Target)
Solver = Literal["own", "adams-bashforth", "official-start"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)


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
class Seen:
    """Residuals of one jump (`sampling.residuals`), over chunks of prompts that had no part in the fit."""

    largest: float
    mean: float
    std: float


@dataclass(frozen=True)
class Calibration:
    """Fitted on a checkpoint under `conditions`, at `budget`.

    computed: steps, from 0 on. first, later: what `sampling.calibrated.Calibrated` adds after each of them, in a
    window's chunk 0 and in all others; an empty one adds nothing. first_seen, later_seen: of the jumps between them,
    alike; empty: nobody looked. predicted: J of `sampling.proposal`; None: nobody asked. target: what it was fitted to.
    first_computed: the steps of a window's chunk 0, which the others follow; empty: as all others. base: the solver
    that is corrected.
    """

    budget: float
    conditions: Conditions
    computed: tuple[int, ...]
    first: tuple[tuple[float, ...], ...]
    later: tuple[tuple[float, ...], ...]
    first_seen: tuple[Seen, ...] = ()
    later_seen: tuple[Seen, ...] = ()
    predicted: float | None = None
    target: Target = "off"
    first_computed: tuple[int, ...] = ()
    base: Solver = "own"

    def steps_of(self, chunk: int) -> tuple[int, ...]:
        """That a window's chunk computes."""
        return self.first_computed or self.computed if chunk == 0 else self.computed

    @property
    def judges(self) -> bool:
        """Whether it says how large residuals may be."""
        return bool(self.first_seen or self.later_seen)

    def carried(self, at: Conditions) -> "Calibration | None":
        """For the guidance there, without what was seen and predicted at its own; None where it does not hold."""
        own = self.conditions
        near = 1 < own.guidance and WEAKEST <= at.guidance / own.guidance <= STRONGEST
        if not near or replace(at, guidance=own.guidance) != own:
            return None
        return replace(self, first_seen=(), later_seen=(), predicted=None)

    def ratio(self, chunk: int, residuals: Sequence[float]) -> float | None:
        """The largest of the window's chunk to what was seen of its jump; None where nothing was."""
        seen = self.later_seen if chunk else self.first_seen
        if not seen or len(seen) != len(residuals):
            return None
        largest = max(own / max(one.largest, ROUNDING) for own, one in zip(residuals, seen, strict=True))
        return float(f"{largest:.4g}")


@dataclass(frozen=True)
class FewerSteps:
    """A run of so many steps: measured on a checkpoint under `conditions`, no other is closer within `budget`.

    lag: its own, in rows. solver: the family's own; where that is Euler's one of second order, where it is UniPC one
    that begins as `off` does. target: to what it was measured.
    """

    judges: ClassVar[bool] = False  # as `Calibration.judges`

    budget: float
    conditions: Conditions
    steps: int
    lag: int
    solver: Solver = "own"
    target: Target = "off"


Preset = Calibration | FewerSteps


@dataclass(frozen=True)
class FixedSteps:
    """So many steps of every chunk, always the same ones, that a whole window takes at most the share `budget` of the
    unaccelerated model's chunk forwards; one at least.

    No rank can disagree, and costs are exact before the start. Where nothing was calibrated it is a run of fewer steps.
    floor: a chunk whose residuals are larger than so many times those that the calibration saw is not good enough, and
    its window is run again within a `larger` budget; None: each is.
    target: what presets must come close to; None: off, or the converged walk where nothing was calibrated to off.
    """

    budget: float
    calibrations: tuple[Preset, ...] = ()
    floor: float | None = None
    target: Target | None = None

    def presets(self, at: Conditions, linear: bool = False) -> list[Preset]:
        """All of one target that hold there, of the largest budget first. linear: see `SamplingPlan`; then where there
        is none those of other guidance, the nearest first."""
        targets = TARGETS if self.target is None else (self.target,)
        return next((found for target in targets if (found := self._presets(at, linear, target))), [])

    def _presets(self, at: Conditions, linear: bool, target: Target) -> list[Preset]:
        known = [each for each in self.calibrations if each.target == target]
        found = [each for each in known if each.conditions == at]
        if linear and not found:
            fitted = (each for each in known if isinstance(each, Calibration))
            found = [own for each in fitted if (own := each.carried(at))]
        return sorted(found, key=lambda each: (-each.budget, abs(at.guidance - each.conditions.guidance)))

    def larger(self, than: Preset) -> tuple[float, ...]:
        """Budgets above this one and above that of the preset that it takes, the next one first, of what was fitted."""
        fitted = (each for each in self.calibrations if isinstance(each, Calibration))
        budgets = {each.budget for each in fitted if (each.conditions, each.target) == (than.conditions, than.target)}
        return tuple(sorted(budget for budget in budgets if max(self.budget, than.budget) < budget < 1))

    def held(self, latents: int) -> int:
        """Bytes that a chunk keeps at its most; latents: bytes of its own."""
        fitted = any(isinstance(each, Calibration) for each in self.calibrations)
        return (LATENTS if fitted else GUIDED) * latents
