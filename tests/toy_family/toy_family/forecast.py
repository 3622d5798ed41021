"""What the toy adds to the policies: a step cache of its own."""

from math import prod

from torch import Tensor

from flowcache.cache.step_cache import Solve, StepCache


class ForecastVelocity(StepCache):
    """The guided velocity, continued by a polynomial of `order` through the last ones that were computed."""

    def __init__(self, order: int) -> None:
        self.order, self.step = order, -1
        self.computed: dict[int, Tensor] = {}  # by step

    def advance(self, latents: Tensor, velocity: Tensor | None, solve: Solve) -> Tensor:
        self.step += 1
        if velocity is not None:
            kept = list(self.computed)[-self.order :]
            self.computed = {step: self.computed[step] for step in kept} | {self.step: velocity}
            return solve(velocity)
        return solve(sum((self.weight(step) * known for step, known in self.computed.items()), latents.new_zeros(())))

    def weight(self, step: int) -> float:
        """Lagrange's, of what was computed at `step`."""
        return prod((self.step - other) / (step - other) for other in self.computed if other != step)

    def held(self, latents: int, tokens: int) -> int:
        return (self.order + 1) * latents
