"""Walks for a calibration, where the model is. What is asked of them, and what they answer, can be sent anywhere."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from flowcache.cache.fixed_steps import Calibration, Preset
from flowcache.errors import FlowcacheError
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel
from flowcache.records import ModelSpec, RenderRequest
from flowcache.sampling.fitting import Fitting
from flowcache.sampling.latents import Given
from flowcache.sampling.loop import Texts
from flowcache.sampling.records import NotFinite
from flowcache.sampling.window import Window
from flowcache.worker.noise import window_noise
from flowcache.worker.renderer import SegmentRenderer
from flowcache.worker.windows import Prompt, policy_of, request_of

A = TypeVar("A")


class Ask(ABC, Generic[A]):
    """What walks of one prompt have to show: the same whoever answers, whatever was asked before.

    stays: whether its window is kept for the next one of this kind about the prompt, which goes on from there.
    """

    stays: ClassVar[bool] = False
    prompt: Prompt

    @abstractmethod
    def answer(self, walking: "Walking") -> A: ...


class Walks(Protocol):
    """Whoever walks: this process, or gangs."""

    def answers(self, asks: Sequence[Ask[A]]) -> Iterator[tuple[int, A]]:
        """To each of `asks`, by its number there, in the order in which they are done."""
        ...


class Walking:
    """Walks windows of one model. shows: whether what is seen on the way is looked at, which of a gang rank 0 does."""

    def __init__(self, model: LoadedModel, shows: bool = True):
        self.model, self.shows = model, shows
        self._texts: dict[str, Texts] = {}
        self._fitted: Calibration | None = None
        self._fits: dict[Prompt, Fitting] = {}

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @torch.inference_mode()
    def answer(self, ask: Ask[A]) -> A:
        if not ask.stays:
            self._fits.clear()
        try:
            return ask.answer(self)
        except BaseException:
            self._fits.clear()  # which may have stopped halfway
            raise

    def window(self, prompt: Prompt, budget: float, made: Preset | None, chunks: int) -> Window:
        """Not walked yet. made: whose steps it takes; None: fewer steps."""
        request = request_of(self.spec, prompt, chunks, budget)
        settings, policy = policy_of(self.spec, budget, made)
        noise, texts = self.given(request)
        sharding = self.model.kv_sharding
        return Window(self.model.transformer, noise, texts, settings, policy, Given(), kv_sharding=sharding)

    def fitting(self, prompt: Prompt, bare: Calibration, chunks: int, row: int) -> Fitting:
        """The prompt's window by the steps of `bare`, not further than the row."""
        if bare != self._fitted:
            self._fits.clear()
        self._fitted = bare
        found = self._fits.get(prompt)
        if found is None or found.taken > row:
            found = self._fits[prompt] = Fitting(self.window(prompt, bare.budget, bare, chunks))
        return found

    def given(self, request: RenderRequest) -> tuple[Tensor, Texts]:
        """Noise and texts."""
        (segment,) = plan(request, self.spec)
        key = f"{segment.chunks} {request.shots[0].prompt}"
        if key not in self._texts:
            self._texts[key] = SegmentRenderer(self.model, request, segment, None).texts()
        return window_noise(self.spec, request, segment, 0), self._texts[key]


class Here:
    """Implements `Walks` in this process. load: is called when the first one is asked for."""

    def __init__(self, load: Callable[[], LoadedModel]):
        self._load = load

    @cached_property
    def _walking(self) -> Walking:
        return Walking(self._load())

    def answers(self, asks: Sequence[Ask[A]]) -> Iterator[tuple[int, A]]:
        """FlowcacheError names the prompt of an exact walk that diverges."""
        for number, ask in enumerate(asks):
            try:
                said = self._walking.answer(ask)
            except NotFinite as error:
                whose = f"the walk of {ask.prompt.text!r} (noise {ask.prompt.seed})"
                raise FlowcacheError(f"{whose} failed: {error}") from error
            yield number, said
