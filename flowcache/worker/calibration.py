"""Calibrates fixed schedules of a checkpoint: finds which steps to compute, fits corrections, keeps what helps prompts
that had no part in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import mean, median

import torch

from flowcache.cache.fixed_steps import Calibration, even_steps
from flowcache.models.base import LoadedModel
from flowcache.sampling.fitting import fit
from flowcache.sampling.proposal import Schedule, Walks, climb, propose
from flowcache.worker.walks import PROBES, Prompt, Target, Walker

__all__ = ["Calibration", "Calibrator", "Outcome", "Prompt", "Target"]

WORST = 3.0  # dB
CHUNKS = 2  # of a window that is fitted: its first chunk, and one for all later ones
NEIGHBOURS = 3  # chunks of a window that is climbed by: one has neighbours on both sides
SCHEDULES = 60  # that are walked at most to find one


@dataclass(frozen=True)
class Outcome:
    """What became of a budget. plain, best: of each prompt that had no part in it, dB of the latents to the target,
    with even steps and the solver alone, and with `calibration`; corrected: whether that has corrections.
    """

    calibration: Calibration
    plain: tuple[float, ...]
    best: tuple[float, ...]

    @property
    def corrected(self) -> bool:
        return any((*self.calibration.first, *self.calibration.later))


@dataclass(frozen=True)
class Calibrator:
    """Of a model, at its own steps, shift, guidance and lag. work: folder for walks that are recorded once.

    schedules: how many may be walked to find one for a budget; 0: the steps lie evenly.
    """

    model: LoadedModel
    target: Target
    work: Path
    schedules: int = SCHEDULES
    _known: dict[tuple[Prompt, ...], Walks] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def walker(self) -> Walker:
        return Walker(self.model, self.target, self.work)

    def calibrate(self, budget: float, prompts: Sequence[Prompt], others: Sequence[Prompt]) -> Outcome:
        """Found and fitted on `prompts`, judged by `others`: what is not closer there than even steps with the solver
        alone, by mean and by median, is not kept."""
        even = self._plain(budget, even_steps(self.walker.conditions().steps, budget))
        found = [even]
        if self.schedules:
            found.append(self._plain(budget, self.schedule(budget, prompts)))
        found += [self._fitted(each, prompts) for each in found]
        closeness = {made: tuple(self.closeness(prompt, made) for prompt in others) for made in dict.fromkeys(found)}
        plain = closeness[even]
        better = [made for made, own in closeness.items() if mean(own) > mean(plain) and median(own) > median(plain)]
        best = max(better, key=lambda made: mean(closeness[made]), default=even)
        return Outcome(best, plain, closeness[best])

    def _plain(self, budget: float, computed: Schedule) -> Calibration:
        nothing = ((),) * len(computed)
        return Calibration(budget, self.walker.conditions(), computed, nothing, nothing)

    def _fitted(self, plain: Calibration, prompts: Sequence[Prompt]) -> Calibration:
        windows = [self.walker.window(prompt, plain.budget, plain, CHUNKS) for prompt in prompts]
        first, later = fit(windows, [self.walker.exact(prompt, CHUNKS) for prompt in prompts])
        return replace(plain, first=first, later=later)

    def schedule(self, budget: float, prompts: Sequence[Prompt]) -> Schedule:
        """Climbed by real walks of `prompts`, from even steps and from what exact walks propose."""
        steps = self.walker.conditions().steps
        even = even_steps(steps, budget)

        def judge(computed: Schedule) -> float:
            found = [self.closeness(prompt, self._plain(budget, computed), NEIGHBOURS) for prompt in prompts]
            return mean(found) + median(found)

        return climb([even, propose(self._exact(tuple(prompts)), len(even))], steps, judge, self.schedules)

    def _exact(self, prompts: tuple[Prompt, ...]) -> Walks:
        if prompts not in self._known:
            self._known[prompts] = self.walker.walks(prompts, min(NEIGHBOURS, self.whole))
        return self._known[prompts]

    @property
    def whole(self) -> int:
        """Chunks of a window."""
        return self.model.spec.window // self.model.spec.chunk

    def closeness(self, prompt: Prompt, made: Calibration, chunks: int | None = None) -> float:
        """dB of a window's latents to the target's; a prompt that became another sample counts as WORST."""
        chunks = self.whole if chunks is None else min(chunks, self.whole)
        exact = self.walker.exact(prompt, chunks)
        ours = self.walker.result(prompt, made.budget, made, chunks)
        theirs = torch.cat([exact[chunk, made.conditions.steps] for chunk in range(chunks)], 1)
        error = (ours - theirs).square().mean().clamp_min(1e-12)
        return max(float(10 * torch.log10(theirs.square().mean() / error)), WORST)

    def forwards(self, budgets: Sequence[float], prompts: int, others: int) -> int:
        """Of a chunk, at the most: walks to be recorded, those that schedules are judged by, and each budget's own."""
        walker, near = self.walker, min(NEIGHBOURS, self.whole)
        found = prompts * walker.forwards(CHUNKS, 1.0, walker.finer) + others * walker.forwards(
            self.whole, 1.0, walker.finer
        )
        if self.schedules:
            found += prompts * walker.forwards(near, 1.0, walker.finer) + (PROBES + 1) * walker.forwards(1, 1.0)
        kinds = 2 if self.schedules else 1  # even steps, and those that were found; each with and without corrections
        for budget in budgets:
            found += prompts * (
                kinds * walker.forwards(CHUNKS, budget) + self.schedules * walker.forwards(near, budget)
            )
            found += others * 2 * kinds * walker.forwards(self.whole, budget)
        return found
