"""Windows of a calibration: what they are asked for as, and what they take, by arithmetic; no weights."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from flowcache.cache.fixed_steps import Conditions, FewerSteps, Preset, Solver, Target
from flowcache.cache.policy import Policy
from flowcache.families.settings import resolve_policy, settings_of
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.sampling.budget import ROUNDING, allowed, count, steps_within
from flowcache.sampling.dry_run import WindowWork, dry_run
from flowcache.sampling.plan import SamplingPlan, Settings
from flowcache.sampling.planning import plan_for
from flowcache.sampling.solver import Euler, UniPC

FINER = 3  # times the steps of a walk that counts as converged


@dataclass(frozen=True)
class Prompt:
    text: str
    seed: int


NOBODY = Prompt("", 0)  # whose text and noise change no count


@dataclass(frozen=True)
class Windows:
    """Of a model, at its own steps, shift, guidance and lag."""

    spec: ModelSpec
    target: Target

    @property
    def finer(self) -> int:
        return finer_for(self.target)

    @property
    def whole(self) -> int:
        """Chunks of a window: see `whole_window`."""
        return whole_window(self.spec)

    def conditions(self) -> Conditions:
        """ValueError where the family has no fixed schedules."""
        settings, policy = self._policy(1.0, None)
        found = settings.plan(self.spec.chunk, policy).conditions
        if found is None:
            raise ValueError(f"{self.spec.name} can't be calibrated: its family has no fixed schedules")
        return found

    def plan(self, budget: float, made: Preset | None, chunks: int) -> SamplingPlan:
        """Of so many chunks by the steps of `made`; None: fewer steps."""
        settings, policy = self._policy(budget, made)
        return plan_for(settings, chunks * self.spec.chunk, policy)

    def forwards(self, made: Preset) -> int:
        """Of a chunk, that a whole window takes by the steps of `made`, be they more than its budget allows."""
        return count(self.plan(1.0, replace(made, budget=1.0), self.whole))

    def allowed(self, budget: float) -> float:
        """Chunk forwards of a whole window."""
        settings, policy = self._policy(budget, None)
        return allowed(settings, policy, self.whole * self.spec.chunk)

    @cached_property
    def base(self) -> Solver:
        """What a calibration corrects: the solver that begins as `off` does, where there is one."""
        found = solvers_for(self.plan(1.0, None, 1), self.target)
        return "official-start" if "official-start" in found else "own"

    def runs(self, budget: float, share: float) -> list[FewerSteps]:
        """Of fewer steps, from that share of what the budget allows to all of it, by each solver, with a lag in
        proportion rounded either way; the one that nobody has measured first."""
        settings, policy = self._policy(budget, None)
        at, frames = self.conditions(), self.whole * self.spec.chunk
        most = steps_within(settings, policy, frames)
        first = plan_for(settings, frames, policy)
        lag = first.conditions.lag if first.conditions else at.lag
        usual = FewerSteps(budget, at, most, lag, target=self.target)
        found, solvers = [usual], solvers_for(first, self.target)
        for steps in range(most, math.ceil(most * share) - 1, -1):
            exact = at.lag * steps / at.steps
            lags = {max(rounded, min(at.lag, 1)) for rounded in (math.floor(exact), math.ceil(exact))}
            ways = product(sorted(lags), solvers)
            found += [FewerSteps(budget, at, steps, lag, solver, self.target) for lag, solver in ways]
        return [*dict.fromkeys(found)]

    def exact_work(self, chunks: int, finer: int) -> WindowWork:
        """What a walk of so many chunks takes that computes every step, `finer` times as many of them."""
        request = request_of(self.spec, NOBODY, chunks, None, finer)
        return self._work(chunks, settings_of(request, self.spec), self._policy(1.0, None)[1].exact)

    def budget_work(self, chunks: int, budget: float) -> WindowWork:
        """What a walk of so many chunks takes by fewer steps."""
        return self._work(chunks, *self._policy(budget, None))

    def most_work(self, chunks: int, budget: float) -> WindowWork:
        """As `budget_work`, by whichever steps the budget allows: fewer ones may leave some of it, and a window's first
        chunk may take most of it."""
        fewer, most, first = self.budget_work(chunks, budget), self.allowed(budget), self.exact_work(1, 1).forwards
        first = min(first, most)
        others = (most - first) * (chunks - 1) / max(self.whole - 1, 1)
        share = max(math.ceil(first + others) / fewer.forwards, 1.0)
        seen, outputs = (math.ceil(count * share) for count in (fewer.seen, fewer.outputs))
        return replace(fewer, forwards=math.ceil(fewer.forwards * share - ROUNDING), seen=seen, outputs=outputs)

    def _policy(self, budget: float, made: Preset | None) -> tuple[Settings, Policy]:
        return policy_of(self.spec, budget, made)

    def _work(self, chunks: int, settings: Settings, policy: Policy) -> WindowWork:
        spec = self.spec
        shape = chunks * spec.chunk, spec.height // spec.space_stride, spec.width // spec.space_stride
        return dry_run(settings, shape, (1, spec.patch, spec.patch), policy)


def solvers_for(plan: SamplingPlan, target: Target) -> tuple[Solver, ...]:
    """What runs of fewer steps are tried by, the family's own first. The fault of `off` is worth nothing elsewhere."""
    if isinstance(plan.solver, Euler):
        return "own", "adams-bashforth"
    begins = isinstance(plan.solver, UniPC) and target == "off"
    return ("own", "official-start") if begins else ("own",)


def finer_for(target: Target) -> int:
    """How many steps the target's walk takes for each of the model's own."""
    return FINER if target == "converged" else 1


def request_of(spec: ModelSpec, prompt: Prompt, chunks: int, budget: float | None, finer: int = 1) -> RenderRequest:
    """budget: None: policy `off`. finer: times the model's own steps."""
    policy = {"name": "off"} if budget is None else {"name": "flowcache", "budget": budget}
    return RenderRequest(
        "calibrated", (Shot(prompt.text, spec.video_frames(chunks * spec.chunk)),), spec.width, spec.height,
        spec.fps, prompt.seed, spec.guidance, spec.steps * finer, spec.name, policy, spec.negative_prompt,
    )  # fmt: skip


def whole_window(spec: ModelSpec) -> int:
    """Chunks of a window as long as the model's videos are where nobody says, or as it can be, if that is less."""
    return max(min(spec.latent_frames(spec.frames), spec.window) // spec.chunk, 1)


def policy_of(spec: ModelSpec, budget: float, made: Preset | None) -> tuple[Settings, Policy]:
    """Of a whole window, and so of its parts, with a budget whose steps are those of `made`; None: fewer steps."""
    calibrated = replace(spec, calibrations=(made,) if made else ())
    request = request_of(spec, NOBODY, whole_window(spec), budget)
    return settings_of(request, calibrated), resolve_policy(request.policy, calibrated)
