"""Which chunks compute their step: what a rule is, as plain data and for one window.

A rule says WHEN a step is reused; what then takes its place is a `step_cache.StepCache`. They are two things: every
rule goes with every cache.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

# signal(chunk) -> the values whose change says how much the chunk's output will change (`VideoModel.signal`);
# of None: those of the whole window. Made when asked for: a rule that looks at nothing costs nothing.
Signal = Callable[[int | None], Tensor]
# The sum of float64 values over all ranks, where each has a part of a chunk's signal (`KVSharding.total`).
Total = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Decision:
    """Whether to compute, and what it was based on (None where no choice was open).

    slot: whose residual it reuses or replaces; None: that of its own guidance branch. branches: by branch, where these
    differ.
    """

    compute: bool
    distance: float | None = None  # relative L1 change of the signal
    estimate: float | None = None
    accumulated: float | None = None  # before it is reset
    slot: int | None = None
    branches: tuple["Decision", ...] = ()

    def of(self, branch: int) -> "Decision":
        return self.branches[branch] if self.branches else self


ALWAYS = Decision(compute=True)


class StepRule(Protocol):
    """Decides for one window; every rank takes the same decisions."""

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        """For each chunk that takes a step in this row, in order; steps: chunk -> its 0-based step."""
        ...

    def forget(self, chunk: int) -> None:
        """The chunk is finished."""
        ...


class Rule(ABC):
    """Of a policy: plain data (a frozen dataclass), of which each window gets a `StepRule`.

    joint: it asks for the signal of the whole window, for which a plan has the `timesteps` of all chunks.
    whole: a row computes all chunks, started or not, or reuses what all of them had: `of_forwards` makes its rule.
    signal: see `CountedReuse`.
    """

    joint: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    signal: Any = "blocks"

    @abstractmethod
    def of_window(self, steps: int, rows: int, total: Total) -> StepRule:
        """A fresh one for a window whose chunks take `steps` steps, in `rows` rows of its schedule."""

    def of_forwards(self, cycle: int, branches: int) -> StepRule:
        """The same by forwards of the window, of so many guidance branches in turn; cycle: see `SamplingPlan`."""
        raise TypeError(f"{type(self).__name__} does not decide for all chunks together")

    def at_most(self) -> "Rule | None":
        """What computes most, for plans; None: every step. A rule that goes by numbers of steps alone gives itself."""
        return None

    def at_least(self) -> "Rule":
        """What computes least, in a plan's dry run, where no signal ever changes."""
        return self


class ComputeAll:
    """No step is reused."""

    def decide(self, row: int, steps: Mapping[int, int], signal: Signal) -> dict[int, Decision]:
        return dict.fromkeys(steps, ALWAYS)

    def forget(self, chunk: int) -> None:
        """There is nothing to forget."""
