"""Which chunks compute their step: one small class a rule, for all chunks of a row before anything is forwarded.

A rule says WHEN a step is reused; what then takes its place is a `step_cache.StepCache`. They are two things: every
rule goes with every cache.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor

from flowcache.cache.policy import Policy
from flowcache.cache.reuse import ALWAYS, Decision, Reuse, ReuseState, decide

# signal(chunk) -> the values whose change says how much the chunk's output will change (`VideoModel.signal`);
# of None: those of the whole window. Made when asked for: a rule that looks at nothing costs nothing.
Signal = Callable[[int | None], Tensor]
# The sum of float64 values over all ranks, where each has a part of a chunk's signal (`KVSharding.total`).
Total = Callable[[Tensor], Tensor]


class StepRule(Protocol):
    """Decides for one window; every rank takes the same decisions."""

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        """For each chunk that takes a step in this row, in order; steps: chunk -> its 0-based step."""
        ...

    def forget(self, chunk: int) -> None:
        """The chunk is finished."""
        ...


class ComputeAll:
    """No step is reused."""

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        return dict.fromkeys(steps, ALWAYS)

    def forget(self, chunk: int) -> None:
        """There is nothing to forget."""


@dataclass
class PerChunk:
    """FlowCache's: each chunk for itself, by the change of its own signal.

    steps: of every chunk. last_row: of the window; with `own_last` False only this one is always computed, and a
    chunk's own last step is not.
    """

    reuse: Reuse
    steps: int
    last_row: int
    own_last: bool
    total: Total
    states: dict[int, ReuseState] = field(default_factory=lambda: defaultdict(ReuseState))

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        ends = self.own_last or row == self.last_row
        decisions = {}
        for chunk, step in steps.items():
            count = self.steps if ends else self.steps + 1  # no step is the last one then
            state = self.states[chunk]
            decisions[chunk], self.states[chunk] = decide(self.reuse, state, signal(chunk), step, count, self.total)
        return decisions

    def forget(self, chunk: int) -> None:
        self.states.pop(chunk, None)  # MAGI-1's signal is as large as the chunk's tokens


@dataclass
class Jointly:
    """TeaCache's: one decision a row for the whole window, from the timesteps of all its frames; rows are its steps."""

    reuse: Reuse
    rows: int
    state: ReuseState = ReuseState()

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        seen = signal(None)
        decision, self.state = decide(self.reuse, self.state, seen, row, self.rows)
        if 0 in steps.values():  # what begins has nothing to reuse
            decision, self.state = ALWAYS, ReuseState(seen)
        return dict.fromkeys(steps, decision)

    def forget(self, chunk: int) -> None:
        """The window goes on."""


@dataclass
class Counted:
    """SkyReels-V2's own TeaCache (skyreels_v2_infer/modules/transformer.py), which counts forwards, not rows.

    It counts to `cycle`, as many as a whole window has rows, and begins anew, with warm-up steps each time: with two
    guidance `branches` in a window's middle. Forwards with an even number have one state and one residual, those with
    an odd one the other: with an odd cycle the branches change places there, and a single branch has both in turn.
    """

    reuse: Reuse
    cycle: int
    branches: int
    count: int = 0
    states: list[ReuseState] = field(default_factory=lambda: [ReuseState(), ReuseState()])

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        seen = signal(None)
        return dict.fromkeys(steps, Decision(True, branches=tuple(self._next(seen) for _ in range(self.branches))))

    def _next(self, seen: Tensor) -> Decision:
        slot = self.count % 2
        decision, self.states[slot] = decide(self.reuse, self.states[slot], seen, self.count // 2, steps=0)
        self.count = (self.count + 1) % self.cycle
        return replace(decision, slot=slot)

    def forget(self, chunk: int) -> None:
        """The window goes on."""


def step_rule(
    policy: Policy, steps: int, rows: int, total: Total, cycle: int | None = None, branches: int = 1
) -> StepRule:
    """A fresh one for a window whose chunks take `steps` steps, in `rows` rows of its schedule.

    cycle, branches: see `Counted`.
    """
    if policy.reuse is None:
        return ComputeAll()
    if policy.whole:
        return Counted(policy.reuse, cycle or rows, branches)
    if policy.joint:
        return Jointly(policy.reuse, rows)
    return PerChunk(policy.reuse, steps, rows - 1, policy.last_step, total)
