"""What stands in for a step that is not computed: one small class a kind of reuse, one object a chunk."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

Solve = Callable[[Tensor], Tensor]  # guided velocity -> the chunk's latents after the solver's step


class StepCache:
    """Of one chunk. It is told what was computed, and asked for what was not; this one keeps nothing.

    tokens, out: [S, D], the chunk's tokens before and after all layers, on this rank. branch: of guidance.
    jumps: what is reused passes by the solver, which must then remember nothing from step to step.
    """

    jumps: ClassVar[bool] = False

    def keep(self, branch: int, tokens: Tensor, out: Tensor) -> None:
        """A forward of a step was computed."""

    def stand_in(self, branch: int, tokens: Tensor) -> Tensor | None:
        """What takes the place of `out` in a step that is reused; None where it has no velocity of its own."""
        return None

    def advance(self, latents: Tensor, velocity: Tensor | None, solve: Solve) -> Tensor:
        """The chunk's latents after a step. velocity: guided; None where the step is reused and nothing stood in."""
        if velocity is None:
            raise ValueError("a step was reused by a policy that keeps nothing")
        return solve(velocity)

    def held(self, latents: int, tokens: int) -> int | None:
        """Bytes that it keeps at its most, for plans; None: what the family counts for its own (`Counts.reuse_bytes`).

        latents: bytes of the chunk's, in float32, which every rank has whole; tokens: of its part of the chunk's tokens
        for all guidance branches.
        """
        return None


class RepeatResidual(StepCache):
    """What all layers together added to the tokens, by branch (SkyReels-V2's FlowCache and TeaCache)."""

    def __init__(self) -> None:
        self.residuals: dict[int, Tensor] = {}

    def keep(self, branch: int, tokens: Tensor, out: Tensor) -> None:
        self.residuals[branch] = out - tokens

    def stand_in(self, branch: int, tokens: Tensor) -> Tensor:
        return tokens + self.residuals[branch]


class RepeatVelocity(StepCache):
    """The last computed guided velocity, which the solver integrates over the step's own length."""

    last: Tensor

    def advance(self, latents: Tensor, velocity: Tensor | None, solve: Solve) -> Tensor:
        if velocity is not None:
            self.last = velocity
        return solve(self.last)


class RepeatIncrement(StepCache):
    """The latents' last increment, whatever the step's length; the solver is not asked (as published for MAGI-1)."""

    jumps = True
    last: Tensor

    def advance(self, latents: Tensor, velocity: Tensor | None, solve: Solve) -> Tensor:
        if velocity is None:
            return latents + self.last
        result = solve(velocity)
        self.last = result - latents
        return result


@dataclass(frozen=True)
class CacheOf:
    """Of a policy: plain data, of which each chunk gets a `StepCache`. settings: what its class is made with."""

    kind: Callable[..., StepCache]
    settings: tuple[Any, ...] = ()

    def of_chunk(self) -> StepCache:
        return self.kind(*self.settings)
