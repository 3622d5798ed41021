"""What forwards take, made once for each chunk that is under way: tokens, texts, places, timestep embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flowcache.models.base import Conditioning, Grid, VideoModel
from flowcache.sampling.latents import Latents
from flowcache.sampling.plan import ChunkForward, SamplingPlan, SamplingStep
from flowcache.sampling.text_inputs import TextInputs
from flowcache.sampling.time_signals import Embedding, TimeSignals

LARGE_CHUNK = 2048  # tokens; what larger ones are embedded to is not kept for all chunks of a row


class ChunkInputs:
    """Of one window."""

    def __init__(self, model: VideoModel, texts: TextInputs, latents: Latents, plan: SamplingPlan, fps: int):
        self.model, self.texts, self.given, self.plan, self.fps = model, texts, latents.given, plan, fps
        size = latents.chunk
        self.grids = [model.grid(x[None], chunk * size) for chunk, x in enumerate(latents.chunks)]
        self.whole = replace(self.grids[0], frames=len(latents) * size)  # of all chunks together
        self.seen: Mapping[int, Tensor] = {}  # latents of this row, by chunk
        self._tokens: dict[int, Tensor] = {}  # of this row
        self._ropes: dict[Grid, Any] = {}
        self._conditionings: dict[tuple[float | None, ...], Conditioning] = {}
        self._signals: TimeSignals | None = None

    def begin(self, seen: Mapping[int, Tensor]) -> None:
        """A row of the schedule, in which the model sees these latents."""
        self.seen, self._tokens = seen, {}

    def forget(self, row: SamplingStep) -> None:
        """Drop the texts and places that the row did not need, so that they do not grow with the window."""
        self.texts.keep({(forward.text, forward.chunk) for forward in row.forwards})
        needed = {self.grid(forward) for forward in row.forwards}
        self._ropes = {grid: rope for grid, rope in self._ropes.items() if grid in needed}
        self._tokens = {}

    def tokens(self, chunk: int) -> Tensor:
        """[1, S, D]; embedded once a row, large chunks whenever another one came between."""
        if chunk not in self._tokens:
            if self.grids[chunk].tokens > LARGE_CHUNK:
                self._tokens.clear()
            self._tokens[chunk] = self.model.embed(self.seen[chunk][None])
        return self._tokens[chunk]

    def release(self, chunk: int) -> None:
        """The row has no further use for the chunk's tokens: those of many chunks would be gigabytes."""
        self._tokens.pop(chunk, None)

    def text_of(self, forwards: Sequence[ChunkForward]) -> list[Any]:
        """One for each, or one for all."""
        return self.texts.take([(forward.text, forward.chunk) for forward in forwards])

    def grid(self, forward: ChunkForward) -> Grid:
        """Where the chunk lies as this forward sees it: one that sees itself alone lies at position 0."""
        grid = self.grids[forward.chunk]
        return replace(grid, first_frame=0) if forward.kv_branch is None else grid

    def rope(self, forward: ChunkForward) -> Any:
        grid = self.grid(forward)
        if grid not in self._ropes:
            self._ropes[grid] = self.model.rope(grid)
        return self._ropes[grid]

    def conditioning(self, forward: ChunkForward, distill: float | None) -> Conditioning:
        """The same for every chunk without given frames, so computed once for each timestep."""
        times = self._times(forward.timestep, forward.chunk)
        key = (*times.tolist(), distill)
        if key not in self._conditionings:
            grid = self.grids[forward.chunk]
            self._conditionings[key] = self.model.condition(times[None], grid, self.fps, distill)
        return self._conditionings[key]

    def conditioning_of_all(self, timesteps: Sequence[float]) -> Conditioning:
        """Of all chunks together; their timesteps."""
        return self.model.condition(self._times_of_all(timesteps)[None], self.whole, self.fps)

    def time_signal(self, number: int, forward: ChunkForward | None, of: Embedding = "blocks") -> Tensor:
        """Of a chunk's forward or, None, of all chunks in row `number`: see `TimeSignals`."""
        if self._signals is None:
            asked = {time for times in self.plan.timesteps for time in times}
            asked |= {forward.timestep for row in self.plan.rows for forward in row.forwards}
            given = self.plan.given_timestep
            self._signals = TimeSignals(self.model, asked if given is None else {*asked, given}, self.fps, of)
        if forward is None:
            return self._signals.of(self._times_of_all(self.plan.timesteps[number]).tolist())
        return self._signals.of(self._times(forward.timestep, forward.chunk).tolist())

    def _times_of_all(self, timesteps: Sequence[float]) -> Tensor:
        return torch.cat([self._times(timestep, chunk) for chunk, timestep in enumerate(timesteps)])

    def _times(self, timestep: float, chunk: int) -> Tensor:
        """Of each of the chunk's frames [f], on the CPU."""
        given = timestep if self.plan.given_timestep is None else self.plan.given_timestep
        return torch.where(self.given[chunk], given, timestep)
