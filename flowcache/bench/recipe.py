"""How a setting is run on a model: steps, solver, and the policy as the denoise loop takes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flowcache.cache.fixed_steps import Solver
from flowcache.cache.policy import Policy
from flowcache.families.known import family
from flowcache.families.settings import settings_of
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.sampling.budget import by_solver
from flowcache.sampling.plan import SamplingPlan, Settings
from flowcache.sampling.planning import plan_for
from flowcache.worker.windows import whole_window

EXACT = {"name": "flowcache", "reuse": False}  # every step; K/V of finished chunks are kept, not made anew


@dataclass(frozen=True)
class Recipe:
    """Two that are equal give the same video. said: of the policy in a request; by: see `FewerSteps`.

    solver: of a request, where the family has a choice.
    """

    policy: Policy
    steps: int
    solver: str | None
    by: Solver = "own"
    said: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def request(self, spec: ModelSpec, prompt: str, seed: int) -> RenderRequest:
        """One window, of the model's own length at most."""
        frames = min(spec.frames, spec.video_frames(spec.window))
        return RenderRequest(
            "bench", (Shot(prompt, frames),), spec.width, spec.height, spec.fps, seed, spec.guidance, self.steps,
            spec.name, {"name": self.policy.name, **self.said}, spec.negative_prompt, solver=self.solver,
        )  # fmt: skip

    def settings(self, request: RenderRequest, spec: ModelSpec) -> Settings:
        every = replace(request, steps=spec.steps)
        return by_solver(settings_of(request, spec), settings_of(every, spec), self.by)

    def told(self, spec: ModelSpec) -> str:
        """How its steps are taken. ValueError as `plan`."""
        return self.plan(spec).told

    def plan(self, spec: ModelSpec) -> SamplingPlan:
        """ValueError where the model can't follow it."""
        return plan_for(self.settings(self.request(spec, "", 0), spec), self.chunks(spec) * spec.chunk, self.policy)

    def chunks(self, spec: ModelSpec) -> int:
        """Of the video."""
        return whole_window(spec)


def solver(spec: ModelSpec, name: str) -> str | None:
    """As a request says it; None where the family has no choice."""
    return name if "solver" in family(spec.family).traits.fields else None


def lengthened(spec: ModelSpec, chunks: int) -> ModelSpec:
    """The model with windows of so many chunks, as rows get them by `base_num_frames` or `segment`: K/V are kept from
    a window's begin to its end."""
    frames = chunks * spec.chunk
    return replace(spec, window=frames, frames=spec.video_frames(frames))
