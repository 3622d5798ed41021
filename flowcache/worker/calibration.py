"""Calibrates budgets of a checkpoint: finds which steps to compute, fits corrections, keeps what is better than fewer
steps for prompts that had no part in it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from statistics import mean, median, pstdev, stdev
from typing import Any, Generic, TypeVar

import torch

from flowcache.cache.fixed_steps import Calibration, FewerSteps, Preset, Seen
from flowcache.families.calibrations import document
from flowcache.families.spec_file import number as is_number
from flowcache.sampling.dry_run import WindowWork
from flowcache.sampling.fitting import Example, Table, fit
from flowcache.sampling.proposal import OPENINGS, Pair, Walks, climb, even_pairs, openings, starts
from flowcache.worker.asks import Shown
from flowcache.worker.journal import Journal, numbers
from flowcache.worker.walks import PROBES, Walker
from flowcache.worker.windows import Prompt, Target, Windows

__all__ = [
    "Calibration",
    "Calibrator",
    "FewerSteps",
    "Outcome",
    "Preset",
    "Prompt",
    "Target",
    "WindowWork",
    "recording",
    "works",
]

Made = TypeVar("Made")
WORST = 3.0  # dB
HOPELESS = 1.0  # dB
FAR = 10.0  # dB from the middle one: a value further away counts as that far
CHUNKS = 2  # of a window that is fitted: its first chunk, and one for all later ones
NEIGHBOURS = 3  # chunks of a window that is climbed by: one has neighbours on both sides
SCHEDULES = 60  # that are walked at most to find one
FEWEST = 0.6  # of the steps that a budget allows: so few are tried, too
RESIDUALS = "residuals"  # as the journal calls them
STARTS = 3 * (1 + len(OPENINGS))  # schedules that it is climbed from, all of which are walked
FOUND = 2  # schedules that are fitted and judged: the climbed one, and the best one in step with the lag


@dataclass(frozen=True)
class Outcome:
    """What became of a budget. preset: None where the most steps within it are as good as anything else. plain, best:
    of each prompt that had no part in it, dB of the latents to the target by fewer steps, as many as are best, and by
    the best schedule that was found.
    """

    budget: float
    preset: Preset | None
    plain: tuple[float, ...]
    best: tuple[float, ...]

    @property
    def corrected(self) -> bool:
        return isinstance(self.preset, Calibration) and any((*self.preset.first, *self.preset.later))


@dataclass(frozen=True)
class Calibrator:
    """Of a model, at its own steps, shift, guidance and lag.

    schedules: how many may be walked to find one for a budget; 0: the steps lie evenly.
    """

    walker: Walker
    schedules: int = SCHEDULES
    _known: dict[tuple[Prompt, ...], Walks] = field(default_factory=dict, compare=False, repr=False)

    @property
    def windows(self) -> Windows:
        return self.walker.windows

    @cached_property
    def journal(self) -> Journal:
        return Journal(self.walker.work / "closeness.jsonl")

    def calibrate(self, budget: float, prompts: Sequence[Prompt], others: Sequence[Prompt]) -> Outcome:
        """Found and fitted on `prompts`, judged by `others`: what is not surely closer there than fewer steps within
        the same forwards is not kept. What is fitted says what residuals they showed, and what was predicted."""
        plain = [*dict.fromkeys((None, self.fewer(budget, prompts)))]
        found = [self._bare(budget, each) for each in self.found(budget, prompts)]
        found += [self._fitted(each, prompts) for each in found]
        closeness = {made: tuple(self.closeness(others, budget, made)) for made in (*plain, *found)}

        def better(made: Preset | None, than: Preset | None) -> bool:
            return surely(gains(closeness[made], closeness[than]))

        best = max(found, key=lambda made: robust(gains(closeness[made], closeness[None])))
        fewer = max(plain, key=lambda made: robust(closeness[made]))
        usual = fewer if better(fewer, None) else None
        kept = self.recorded(best, prompts, others) if all(better(best, each) for each in plain) else usual
        return Outcome(budget, kept, closeness[fewer], closeness[best])

    def fewer(self, budget: float, prompts: Sequence[Prompt]) -> FewerSteps | None:
        """The run of fewer steps that brings `prompts` closest, the most not always being best; None: the most, by the
        family's own solver."""
        if not self.schedules:
            return None
        usual, *others = self.windows.runs(budget, FEWEST)

        def judged(made: FewerSteps, some: Sequence[Prompt]) -> list[float]:
            return self.closeness(some, budget, made, NEIGHBOURS)

        best = max((usual, *others), key=Race(prompts, judged).value)
        return None if best == usual else best

    def recorded(self, made: Calibration, prompts: Sequence[Prompt], others: Sequence[Prompt]) -> Calibration:
        """With what its steps were predicted to cost, from exact walks of `prompts` where these propose any, and the
        residuals that `others` show."""
        bare = replace(made, first_seen=(), later_seen=(), predicted=None)
        pair = made.steps_of(0), made.computed
        predicted = self._exact(tuple(prompts)).both(pair) if self.schedules else None
        shown = [own for own in self._shown(others, bare) if own]
        first, later = [own[0] for own in shown], [chunk for own in shown for chunk in own[1:]]
        return replace(bare, first_seen=seen(first), later_seen=seen(later), predicted=predicted)

    def _bare(self, budget: float, pair: Pair) -> Calibration:
        opening, later = pair
        first, others = (((),) * len(each) for each in pair)
        own = () if opening == later else opening
        at, target, base = self.windows.conditions(), self.windows.target, self.windows.base
        return Calibration(budget, at, later, first, others, target=target, first_computed=own, base=base)

    def _fitted(self, bare: Calibration, prompts: Sequence[Prompt]) -> Calibration:
        def ask(row: int, first: Table, later: Table, to: Mapping[int, int]) -> list[list[Example]]:
            return self.walker.examples(prompts, replace(bare, first=first, later=later), CHUNKS, row, to)

        def walked(missing: list[int]) -> list[tuple[int, Any]]:
            self.walker.record(prompts, CHUNKS)
            return [(0, fit(self.windows.plan(bare.budget, bare, CHUNKS), ask))]

        of = ["fitted", document(bare), *(self.walker.key(prompt, CHUNKS) for prompt in prompts)]
        ((first, later),) = self.journal.values([of], walked, fits)
        return replace(bare, first=tuple(map(tuple, first)), later=tuple(map(tuple, later)))

    def found(self, budget: float, prompts: Sequence[Prompt]) -> list[Pair]:
        """Climbed by real walks of `prompts`, and the best one in step with the lag."""
        at, allowed = self.windows.conditions(), self.windows.allowed(budget)

        def fits(pair: Pair) -> bool:
            first, later = pair
            in_order = first[-1] <= at.lag + later[-1]  # as chunks must finish
            return in_order and self.windows.forwards(self._bare(budget, pair)) <= allowed

        def judged(pair: Pair, some: Sequence[Prompt]) -> list[float]:
            return self.closeness(some, budget, self._bare(budget, pair), NEIGHBOURS)

        if not self.schedules:
            return even_pairs(at.steps, fits) or [((0,), (0,))]
        walks, value = self._exact(tuple(prompts)), cache(Race(prompts, judged).value)
        in_step, others = starts(walks, openings(walks) if self.windows.whole > 1 else [], fits)
        every = [*dict.fromkeys((*in_step, *others))] or [((0,), (0,))]
        best = climb(every, at.steps, value, self.schedules, fits, walks.both)
        return [*dict.fromkeys((best, max(in_step or every, key=value)))]

    def _exact(self, prompts: tuple[Prompt, ...]) -> Walks:
        if prompts not in self._known:
            self._known[prompts] = self.walker.walks(prompts, min(NEIGHBOURS, self.windows.whole))
        return self._known[prompts]

    def closeness(
        self, prompts: Sequence[Prompt], budget: float, made: Preset | None, chunks: int | None = None
    ) -> list[float]:
        """Of each prompt, dB of a window's latents to the target's, by fewer steps where nothing is `made`; a prompt
        that became another sample counts as WORST."""
        walker, whole = self.walker, self.windows.whole
        chunks = whole if chunks is None else min(chunks, whole)
        of = self._of(prompts, budget, made, chunks)

        def walked(missing: list[int]) -> Iterator[tuple[int, float]]:
            some = [prompts[number] for number in missing]
            walker.record(some, chunks)
            for number, (ours, shown) in walker.results(some, budget, made, chunks):
                if isinstance(made, Calibration) and chunks == whole:
                    self._note([*of[missing[number]], RESIDUALS], shown)
                theirs = torch.cat(walker.exact(some[number], chunks, self.windows.spec.steps), 1)
                error = (ours - theirs).square().mean().clamp_min(1e-12)
                decibels = float(10 * torch.log10(theirs.square().mean() / error))
                yield missing[number], max(WORST, decibels)  # in this order NaN counts as WORST

        return self.journal.values(of, walked, is_number)

    def _shown(self, prompts: Sequence[Prompt], made: Calibration) -> list[Shown]:
        """Residuals of whole windows, which are walked for them where an older version judged them and kept none."""
        budget, whole = made.budget, self.windows.whole

        def walked(missing: list[int]) -> Iterator[tuple[int, Shown]]:
            some = [prompts[number] for number in missing]
            for number, (_, shown) in self.walker.results(some, budget, made, whole):
                yield missing[number], shown

        of = self._of(prompts, budget, made, whole)
        return self.journal.values([[*each, RESIDUALS] for each in of], walked, shows)

    def _note(self, of: list[Any], shown: Shown) -> None:
        self.journal.values([of], lambda missing: [(0, shown)], shows)

    def _of(self, prompts: Sequence[Prompt], budget: float, made: Preset | None, chunks: int) -> list[list[Any]]:
        """What the journal has values of, prompt by prompt."""
        return [[*self.walker.key(prompt, chunks), budget, made and document(made)] for prompt in prompts]


def works(
    windows: Windows, schedules: int, budgets: Sequence[float], prompts: int, others: int
) -> list[tuple[int, WindowWork]]:
    """How many windows of which work, at the most: walks to be recorded, those that schedules are judged by, and
    each budget's own."""
    near, exact, finer = min(NEIGHBOURS, windows.whole), windows.whole, windows.finer
    found = [(prompts, windows.exact_work(CHUNKS, finer)), (others, windows.exact_work(exact, finer))]
    if schedules:
        found += [(prompts, windows.exact_work(near, finer)), (PROBES + 1, windows.exact_work(1, 1))]
    kinds, tried = (FOUND, max(schedules, STARTS)) if schedules else (1, 0)

    def runs(budget: float) -> int:
        return len(windows.runs(budget, FEWEST)) if schedules else 0

    for budget in budgets:
        found += [
            (prompts * kinds, windows.most_work(CHUNKS, budget)),
            (prompts * (tried + runs(budget)), windows.most_work(near, budget)),
            (others * (2 + 2 * kinds), windows.most_work(exact, budget)),
        ]
    return [(count, work) for count, work in found if count]


def recording(
    windows: Windows, schedules: int, budgets: Sequence[float], prompts: int, others: int
) -> list[tuple[int, WindowWork]]:
    """As `works`, of `Calibrator.recorded` alone."""
    near, one = windows.exact_work(min(NEIGHBOURS, windows.whole), windows.finer), windows.exact_work(1, 1)
    found = [(prompts, near), (PROBES + 1, one)] if schedules else []
    return [*found, *((others, windows.most_work(windows.whole, budget)) for budget in budgets)]


@dataclass
class Race(Generic[Made]):
    """How good schedules are, of which the best is sought. closeness: of a schedule, to some of the prompts.

    Where half of the prompts say that one is worse than the best so far by HOPELESS, the others are not asked.
    """

    prompts: Sequence[Prompt]
    closeness: Callable[[Made, Sequence[Prompt]], list[float]]
    best: list[float] = field(default_factory=list)

    def value(self, schedule: Made) -> float:
        half = len(self.prompts) // 2
        found = self.closeness(schedule, self.prompts[:half])
        if self.best and found and robust(gains(found, self.best[:half])) < -HOPELESS:
            return float("-inf")
        found += self.closeness(schedule, self.prompts[half:])
        if not self.best or robust(found) > robust(self.best):
            self.best = found
        return robust(found)


def seen(chunks: Shown) -> tuple[Seen, ...]:
    """Of each jump, over chunks."""
    return tuple(Seen(max(jump), mean(jump), pstdev(jump)) for jump in zip(*chunks, strict=True))


def fits(value: Any) -> bool:
    """Whether it can be two tables of coefficients."""
    return isinstance(value, list) and len(value) == 2 and all(map(shows, value))


def shows(value: Any) -> bool:
    """Whether it can be what a window showed, nothing where it diverged."""
    return isinstance(value, list) and all(isinstance(own, list) and numbers(own) for own in value)


def gains(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def robust(values: Sequence[float]) -> float:
    """The mean, in which a value that is far from the middle one counts as FAR away from it."""
    middle = median(values)
    return mean(min(max(value, middle - FAR), middle + FAR) for value in values)


def surely(differences: Sequence[float]) -> bool:
    """Whether they are above 0: the middle one, and the mean by more than two of its standard errors."""
    error = stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return median(differences) > 0 and mean(differences) > 2 * error
