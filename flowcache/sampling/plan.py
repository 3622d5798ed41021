"""What a family does with a window, as plain data that the denoise loop follows, row by row of its schedule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from flowcache.cache.fixed_steps import Calibration, Conditions
from flowcache.cache.policy import Policy

TextKind = Literal["caption", "negative", "null", "dropped"]


@dataclass(frozen=True)
class ChunkForward:
    """One pass of a chunk through the transformer.

    branch: which of the velocities that guidance combines. step: 0-based; -1: for its K/V alone.
    timestep: 0..1000, as the model counts. text: which of the chunk's texts; "null" stands for no caption, "dropped"
    tells the model so too. kv_branch: whose K/V it reads and writes; None: it sees only itself, at position 0, and
    leaves nothing behind. first: chunks before this one are not seen.
    """

    chunk: int
    branch: int
    step: int
    timestep: float
    text: TextKind = "caption"
    kv_branch: int | None = 0
    first: int = 0

    def can_batch_with(self, after: "ChunkForward") -> bool:
        """Whether the forward after this one may run with it: the same but for its text, in the next K/V branch."""
        if self.kv_branch is None or after.kv_branch != self.kv_branch + 1:
            return False
        return replace(after, branch=self.branch, text=self.text, kv_branch=self.kv_branch) == self


@dataclass(frozen=True)
class SamplingStep:
    """Forwards in order; each chunk with a step in them takes it at the row's end.

    clean: so many chunks at the front may be cut down to the policy's budget of clean tokens. late: by the queries of
    the last forward before. distill: see `VideoModel.condition`.
    """

    forwards: tuple[ChunkForward, ...]
    clean: int = 0
    late: bool = False
    distill: float | None = None

    @property
    def steps(self) -> dict[int, int]:
        """The step that each updated chunk takes, by chunk in order."""
        return {forward.chunk: forward.step for forward in self.forwards if forward.step >= 0}


class Solver(Protocol):
    """One time grid; it holds no sample: each chunk has a state of its own, `start` at first.

    start: None for one that remembers nothing from step to step.
    """

    @property
    def start(self) -> Any: ...

    def step(
        self, index: int, velocity: Tensor, sample: Tensor, state: Any, noise: Callable[[], Tensor]
    ) -> tuple[Tensor, Any]:
        """From time `index` to the next, given the velocity at `sample`; solvers that re-noise draw from `noise`."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A solver that says how long its steps are."""

    @property
    def carried(self) -> tuple[float, ...]:
        """How far a velocity of 1 has moved the latents before each step, and at the end, but for its sign."""
        ...


def carried(solver: Solver) -> tuple[float, ...]:
    """See `Timed`; nothing where the solver does not say."""
    return solver.carried if isinstance(solver, Timed) else ()


@dataclass(frozen=True)
class SamplingPlan:
    """steps: of every chunk. guide(step, velocities of the branches, in their order) -> the velocity to take.

    kv_branches: K/V stores side by side. budget: clean chunks' worth of tokens that each holds; None: all.
    prefix_timestep: to which the prefix is noised; 0: it stays clean. given_timestep: of given frames inside a chunk
    that is denoised; None: the chunk's own. timesteps: of every chunk in every row, for decisions about all at once.
    cycle: forwards after which SkyReels-V2's TeaCache counts anew; 0: the number of rows.
    told: how its steps are taken, for who asks what a run will do.
    weightless: (step, branch) whose velocity `guide` would multiply by 0: it is given the others alone.
    conditions: what a fixed schedule is chosen by; None: the family has none. linear: at every step `guide` goes
    `conditions.guidance` times the way from the second of two velocities to the first. computed: the steps that it
    takes, and that `solver` counts; empty: all. calibration: which says so. opening: the solver of a window's chunk 0,
    where that has its own.
    spared: forwards that it leaves out.
    """

    steps: int
    rows: tuple[SamplingStep, ...]
    solver: Solver
    guide: Callable[[int, list[Tensor]], Tensor]
    kv_branches: int
    budget: int | None
    prefix_timestep: float = 0.0
    given_timestep: float | None = None
    timesteps: tuple[tuple[float, ...], ...] = ()
    cycle: int = 0
    told: str = ""
    weightless: frozenset[tuple[int, int]] = frozenset()
    conditions: Conditions | None = None
    linear: bool = False
    computed: tuple[int, ...] = ()
    calibration: Calibration | None = None
    opening: Solver | None = None
    spared: tuple[ChunkForward, ...] = ()

    def steps_of(self, chunk: int) -> Sequence[int]:
        """That the chunk takes."""
        return self.calibration.steps_of(chunk) if self.calibration else range(self.steps)

    def last(self, chunk: int) -> int:
        """The last step that it takes."""
        return self.steps_of(chunk)[-1]

    def place(self, chunk: int, step: int) -> int:
        """Its number among those that the chunk's solver knows."""
        return self.steps_of(chunk).index(step)

    def solver_of(self, chunk: int) -> Solver:
        return self.opening if self.opening and chunk == 0 else self.solver

    @property
    def capacity(self) -> int:
        """Most chunks whose K/V one branch holds at once, whichever forwards are skipped.

        The budget is enforced where a chunk after the clean ones is forwarded, and one more slot holds its own.
        """
        kept = [(row.clean, forward.chunk) for row in self.rows for forward in row.forwards
                if forward.kv_branch is not None]  # fmt: skip
        over = [0 if self.budget is None else max(min(clean, chunk) - self.budget, 0) for clean, chunk in kept]
        return max(chunk + 1 - cut for (_, chunk), cut in zip(kept, over, strict=True)) if kept else 0


class Settings(Protocol):
    """How to denoise one window, for one family. chunk: in latent frames."""

    @property
    def chunk(self) -> int: ...
    @property
    def fps(self) -> int: ...  # the nearest whole rate

    def plan(self, frames: int, policy: Policy, given: int = 0) -> SamplingPlan:
        """For a window of `frames` latent frames of which the first `given` are given.

        ValueError where frames are no whole number of chunks, or for a policy that the family does not know.
        """
        ...


def finished_in(plan: SamplingPlan, row: SamplingStep) -> Sequence[int]:
    """Chunks that take their last step in this row."""
    return [chunk for chunk, step in row.steps.items() if step == plan.last(chunk)]
