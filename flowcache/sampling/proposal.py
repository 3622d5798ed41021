"""Which steps a fixed schedule might compute, before one is walked: what exact walks say that it would cost.

The surrogate J = sum_k (growth(s_k+1) e(s_k-1, s_k, s_k+1))^2 + 4 sum_k (growth(s_k+1) (t(s_k+1) - t(s_k)))^2 D(a, b):
how badly each jump is joined (e), how old a neighbour's K/V are (D between its last computed step a and the one where
it is, b = s_k + lag), and to what both grow. It ranks schedules that compute much; at low budgets real walks decide.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice

import torch
from torch import Tensor

OPENINGS = (1.0, 0.75, 0.5)  # shares of the steps that a window's first chunk is tried with
STALE = 4.0  # weight of a neighbour's age against one's own jumps
TINY = 1e-9  # ridge of the joins, relative
Schedule = tuple[int, ...]
Pair = tuple[Schedule, Schedule]  # of a window's chunk 0, and of all others
Fits = Callable[[Pair], bool]


@dataclass(frozen=True)
class Walks:
    """Exact walks, all prompts together. lag: steps by which a chunk is ahead of the next one.

    products: of latents before each step and at the end (S + 1 of them), then of each branch's velocities (S each), all
    with all: [N, N], each prompt's over the square of its result. growth: [S + 1], what an error of the latents before
    that step has become at the end. time: [S + 1], integrated: how far a velocity carries.
    """

    lag: int
    products: Tensor
    growth: Tensor
    time: Tensor

    @property
    def steps(self) -> int:
        return len(self.time) - 1

    @property
    def branches(self) -> int:
        return (len(self.products) - len(self.time)) // self.steps

    def velocity(self, branch: int, step: int) -> int:
        """Where it stands in `products`."""
        return len(self.time) + branch * self.steps + step

    @cached_property
    def jumps(self) -> Tensor:
        """[before, from, to]: square of what the best sum of what is at hand leaves unexplained, grown to the end.

        At hand: the latents, the velocities, and those of the computed step before; -1 as `before`: none.
        """
        steps = self.steps
        found = torch.full((steps + 1, steps, steps + 1), float("inf"), dtype=torch.float64)
        for at in range(steps):
            for before in (*range(at), -1):
                known = [at, *(self.velocity(b, s) for s in (at, before) if s >= 0 for b in range(self.branches))]
                found[before, at, at + 1 :] = self._left(known, list(range(at + 1, steps + 1)))
        return found * self.growth.square()

    def _left(self, known: list[int], wanted: list[int]) -> Tensor:
        gram, right = self.products[known][:, known], self.products[known][:, wanted]
        scale = gram.diagonal().clamp_min(1e-30).sqrt()
        eye = torch.eye(len(known), dtype=gram.dtype)
        join = torch.linalg.solve(gram / scale[:, None] / scale + TINY * eye, right / scale[:, None]) / scale[:, None]
        squares = self.products.diagonal()[wanted]
        return (squares - 2 * (join * right).sum(0) + (join * (gram @ join)).sum(0)).clamp_min(0)

    @cached_property
    def ages(self) -> Tensor:
        """[computed, now]: square of how far the velocities at a step are from those at an earlier one."""
        each = []
        for branch in range(self.branches):
            own = [self.velocity(branch, step) for step in range(self.steps)]
            gram = self.products[own][:, own]
            squares = gram.diagonal()
            each.append((squares[:, None] + squares - 2 * gram).clamp_min(0))
        return torch.stack(each).mean(0)

    def joined(self, schedule: Schedule) -> float:
        """How badly one chunk's jumps are joined, all together."""
        ends = zip((-1, *schedule), schedule, (*schedule[1:], self.steps), strict=False)
        return sum(float(self.jumps[before, at, to]) for before, at, to in ends)

    def both(self, pair: Pair) -> float:
        """J of a chunk that has one ahead, and the jumps of chunk 0, where that takes other steps."""
        opening, later = pair
        return self.cost(later) + (0.0 if opening == later else self.joined(opening))

    def cost(self, schedule: Schedule) -> float:
        """J, over one chunk's jumps and the K/V of the chunk ahead at each of them."""
        total, ahead = self.joined(schedule), 0
        for place, at in enumerate(schedule):
            to = schedule[place + 1] if place + 1 < len(schedule) else self.steps
            now = at + self.lag
            if now < self.steps:  # else the chunk ahead is finished, and its K/V are refreshed
                while ahead + 1 < len(schedule) and schedule[ahead + 1] <= now:
                    ahead += 1
                carried = float(self.growth[to] * (self.time[to] - self.time[at]))
                total += STALE * carried**2 * float(self.ages[schedule[ahead], now])
        return total


def even_steps(steps: int, count: int) -> Schedule:
    """So many of the steps, from 0 on, as even as can be."""
    return tuple(round(number * steps / count) for number in range(count))


def propose(walks: Walks, count: int) -> Schedule:
    """So many steps, from 0 on, of least cost: the best chain of jumps, then steps are moved while that helps."""
    return moved(chained(walks, count), walks.cost, walks.steps)


def openings(walks: Walks) -> list[Schedule]:
    """What a window's first chunk might take, which all others follow: every step, or a part of them, whose jumps are
    joined as well as can be."""
    counts = dict.fromkeys(max(round(walks.steps * share), 1) for share in OPENINGS)
    return [moved(chained(walks, count), walks.joined, walks.steps) for count in counts]


def aligned(walks: Walks, count: int) -> Schedule:
    """So many steps, most of them in step with the lag: where one is computed, so is the one a lag later, and chunks
    see their neighbours as they are. The others lie where they cost least. Even ones where there are too few."""
    lag = walks.lag or walks.steps
    places = count // -(-walks.steps // lag)
    if not places:
        return even_steps(walks.steps, count)

    def grid(own: Schedule) -> Schedule:
        return tuple(step for step in range(walks.steps) if step % lag in own)

    found = grid(moved(even_steps(lag, min(places, lag)), lambda own: walks.cost(grid(own)), lag))
    while len(found) < count:
        others = (tuple(sorted({*found, step})) for step in range(walks.steps) if step not in found)
        found = min(others, key=walks.cost)
    return found


def starts(walks: Walks, firsts: Sequence[Schedule], fits: Fits) -> tuple[list[Pair], list[Pair]]:
    """As many steps as fit, of all chunks alike and after each of `firsts`: in step with the lag; even ones, and those
    that exact walks propose."""
    in_step, others = list[Pair](), list[Pair]()
    for first in (None, *firsts):
        for even in even_pairs(walks.steps, fits, first):
            count = len(even[1])
            if first and len(first) <= count:
                continue
            near = range(min(count + 2, walks.steps), 0, -1)  # where forwards depend on the steps, more of them may fit
            in_step += _most(partial(aligned, walks), near, fits, first)
            others += [even, *_most(partial(propose, walks), near, fits, first)]
    return in_step, others


def even_pairs(steps: int, fits: Fits, first: Schedule | None = None) -> list[Pair]:
    """The one of most even steps that fits, if any. first: a window's first chunk's steps; None: as all others."""
    return _most(partial(even_steps, steps), range(steps, 0, -1), fits, first)


def _most(make: Callable[[int], Schedule], counts: Iterable[int], fits: Fits, first: Schedule | None) -> list[Pair]:
    pairs = ((first or later, later) for later in map(make, counts))
    return [*islice(filter(fits, pairs), 1)]


def chained(walks: Walks, count: int) -> Schedule:
    """By dynamic programming over pairs of steps; what neighbours cost is not seen."""
    steps, jumps = walks.steps, walks.jumps
    best = torch.full((steps + 1, steps), float("inf"), dtype=torch.float64)  # [before, at], -1 is the last row
    best[-1, 0], came = 0.0, list[Tensor]()
    for _ in range(count - 1):
        costs = best[:, :, None] + jumps[:, :, :steps]  # [before, at, to]
        least, chosen = costs.min(0)
        came.append(chosen)
        best = torch.full_like(best, float("inf"))
        best[:steps] = least
    at = int((best + jumps[:, :, steps]).flatten().argmin())
    before, last = divmod(at, steps)
    found = [last]
    for chosen in reversed(came):
        found.append(before)
        before = int(chosen[before, found[-2]])
    return tuple(reversed(found))


def moved(schedule: Schedule, cost: Callable[[Schedule], float], steps: int) -> Schedule:
    """The best of all single moves of a step to a free place, again and again, while the cost falls."""
    best = cost(schedule)
    while True:
        others = [(cost(other), other) for other in moves(schedule, steps, steps)]
        least, other = min(others, default=(best, schedule))
        if least >= best:
            return schedule
        best, schedule = least, other


def moves(schedule: Schedule, steps: int, furthest: int) -> list[Schedule]:
    """Every schedule in which one step lies elsewhere, at most so far away; the first one stays."""
    found = []
    for place in range(1, len(schedule)):
        rest = {*schedule[:place], *schedule[place + 1 :]}
        for to in range(max(schedule[place] - furthest, 1), min(schedule[place] + furthest, steps - 1) + 1):
            if to != schedule[place] and to not in rest:
                found.append(tuple(sorted({*rest, to})))
    return found


def changes(pair: Pair, steps: int, furthest: int) -> list[Pair]:
    """Every pair in which a step of one of them is moved so; of both, where they are the same."""
    opening, later = pair
    if opening == later:
        return [(other, other) for other in moves(later, steps, furthest)]
    others = [(opening, other) for other in moves(later, steps, furthest)]
    return others + [(other, later) for other in moves(opening, steps, furthest)]


@dataclass
class Climb:
    """By real walks. judge: how good a pair is, higher is better; walks: how often it may be asked."""

    judge: Callable[[Pair], float]
    walks: int
    seen: dict[Pair, float]

    def value(self, pair: Pair) -> float:
        if pair not in self.seen:
            self.seen[pair] = self.judge(pair)
        return self.seen[pair]

    @property
    def spent(self) -> bool:
        return len(self.seen) >= self.walks


def climb(
    starts: Sequence[Pair],
    steps: int,
    judge: Callable[[Pair], float],
    walks: int,
    fits: Fits = lambda pair: True,
    cost: Callable[[Pair], float] = lambda pair: 0.0,
) -> Pair:
    """From the best of `starts` on: `changes` by one or two steps, the first that helps is taken, until none does or so
    many pairs were judged (all of `starts` are). fits: whether a change may be made at all. cost: of two the cheaper
    one is judged first."""
    search = Climb(judge, walks, {})
    best = max(starts, key=search.value)
    while not search.spent:
        others = (other for other in sorted(changes(best, steps, 2), key=cost) if fits(other) and not search.spent)
        better = next((other for other in others if search.value(other) > search.seen[best]), None)
        if better is None:
            break
        best = better
    return best
