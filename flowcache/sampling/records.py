"""What goes into the denoise loop, and what comes out."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from flowcache.cache.fixed_steps import Calibration
from flowcache.cache.step_rule import Decision
from flowcache.errors import FlowcacheError


@dataclass(frozen=True)
class Texts:
    """Text embeddings [1, L, D]; `negative` is needed where a family's guidance asks for it, and of a family that has
    learned a null caption stands in its place.

    positive: one for the whole window, or one for each of its chunks, those of the prefix included; None: no caption.
    """

    positive: Tensor | Sequence[Tensor | None]
    negative: Tensor | None = None


@dataclass(frozen=True)
class FinishedChunk:
    """A clean chunk. index: within the window, prefix chunks counted; latents [C, f, H, W] fp32.

    computed, reused: forwards of its steps, all guidance branches. seconds: its share of the time; the shares
    of a window's chunks sum up to the time that the window took. kv_bytes: of the K/V storage of the whole window.
    decisions: for each guidance branch a character a step, 1 where it was computed, 0 where reused, - where the
    branch does not run. forwards: all that ran since the chunk before was finished, other chunks' too, and those for
    K/V alone: over a window's chunks they sum up to what it took. residuals: of a fixed schedule's jumps
    (`sampling.residuals`). calibration: that it follows, if any.
    """

    index: int
    latents: Tensor
    computed: int
    reused: int
    seconds: float
    kv_bytes: int = 0
    decisions: tuple[str, ...] = ()
    forwards: int = 0
    residuals: tuple[float, ...] = ()
    calibration: Calibration | None = None

    @property
    def ratio(self) -> float | None:
        """Of its residuals to what the calibration saw; None where nobody can tell."""
        return self.calibration and self.calibration.ratio(self.index, self.residuals)


@dataclass(frozen=True)
class Visit:
    """One chunk's forward in one guidance branch, as an observer sees it.

    step: 0-based; -1 where the chunk is not updated (a prefix or a finished chunk, forwarded for its K/V).
    seen: tokens whose K/V it attends to, its own included; 0 where it reuses.
    """

    row: int
    chunk: int
    branch: int  # `ChunkForward.branch`
    step: int
    decision: Decision
    latents: Tensor  # [C, f, H, W] at input
    velocity: Tensor | None  # alike; None where the chunk is not updated, or reuses without one
    seen: int


class NotFinite(FlowcacheError):
    """A chunk came out with NaN or infinite latents."""

    def __init__(self, chunk: int):
        self.chunk = chunk
        super().__init__(f"chunk {chunk} of the window has NaN or infinite latents")

    def __reduce__(self) -> tuple[type["NotFinite"], tuple[int]]:
        return type(self), (self.chunk,)
