"""What a family does with a window, as plain data that the denoise loop follows: a tick is a row of its schedule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from torch import Tensor

from flowcache.cache.reuse import Policy

Captioned = Literal["caption", "negative", "null", "dropped"]


@dataclass(frozen=True)
class Forward:
    """One pass of a chunk through the transformer.

    branch: which of the velocities that guidance combines. step: 0-based; -1: for its K/V alone.
    timestep: 0..1000, as the model counts. text: which of the chunk's texts; "null" stands for no caption, "dropped"
    tells the model so too. memory: whose K/V it reads and writes; None: it sees only itself, at position 0, and
    leaves nothing behind. first: chunks before this one are not seen.
    """

    chunk: int
    branch: int
    step: int
    timestep: float
    text: Captioned = "caption"
    memory: int | None = 0
    first: int = 0

    def beside(self, after: "Forward") -> bool:
        """Whether the forward after this one may run with it: the same but for its text, in the next memory."""
        if self.memory is None or after.memory != self.memory + 1:
            return False
        return replace(after, branch=self.branch, text=self.text, memory=self.memory) == self


@dataclass(frozen=True)
class Tick:
    """Forwards in order; each chunk with a step in them takes it at the tick's end.

    clean: so many chunks at the front may be cut down to the policy's budget of clean tokens. cut_after: so many may
    be after the last forward. distill: see `VideoModel.condition`.
    """

    forwards: tuple[Forward, ...]
    clean: int = 0
    cut_after: int = 0
    distill: float | None = None

    @property
    def steps(self) -> dict[int, int]:
        """The step that each updated chunk takes, by chunk in order."""
        return {forward.chunk: forward.step for forward in self.forwards if forward.step >= 0}


class Solver(Protocol):
    """One time grid; it holds no sample: each chunk has a state of its own, `start` at first."""

    start: Any

    def step(self, index: int, velocity: Tensor, sample: Tensor, state: Any) -> tuple[Tensor, Any]:
        """From time `index` to the next, given the velocity at `sample`."""
        ...


@dataclass(frozen=True)
class Walk:
    """steps: of every chunk. guide(step, velocities of the branches, in their order) -> the velocity to take.

    memories: K/V stores side by side. budget: clean chunks' worth of tokens that each holds; None: all.
    noised: timestep to which the prefix is noised; 0: it stays clean. held: timestep of given frames inside a chunk
    that is denoised; None: the chunk's own. timesteps: of every chunk in every tick, for decisions about all at once.
    """

    steps: int
    ticks: tuple[Tick, ...]
    solver: Solver
    guide: Callable[[int, list[Tensor]], Tensor]
    memories: int
    budget: int | None
    noised: float = 0.0
    held: float | None = None
    timesteps: tuple[tuple[float, ...], ...] = ()

    @property
    def capacity(self) -> int:
        """Most chunks whose K/V one memory holds at once, whichever forwards are skipped.

        The budget is enforced where a chunk after the clean ones is forwarded, and one more slot holds its own.
        """
        kept = [(tick.clean, forward.chunk) for tick in self.ticks for forward in tick.forwards
                if forward.memory is not None]  # fmt: skip
        over = [0 if self.budget is None else max(min(clean, chunk) - self.budget, 0) for clean, chunk in kept]
        return max(chunk + 1 - cut for (_, chunk), cut in zip(kept, over, strict=True)) if kept else 0


class Settings(Protocol):
    """How to denoise one window, for one family. chunk: in latent frames."""

    chunk: int
    fps: int

    def walk(self, frames: int, policy: Policy, held: int = 0) -> Walk:
        """For a window of `frames` latent frames of which the first `held` are given.

        ValueError where frames are no whole number of chunks, or for a policy that the family does not know.
        """
        ...


def finished_in(walk: Walk, tick: Tick) -> Sequence[int]:
    """Chunks that take their last step in this tick."""
    return [chunk for chunk, step in tick.steps.items() if step == walk.steps - 1]
