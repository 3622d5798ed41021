"""The denoise loop: one for every family, yielding each chunk as soon as it is clean."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from flowcache.cache.kv_store import KVStore
from flowcache.cache.reuse import ALWAYS, Decision, Policy, ReuseState, decide
from flowcache.models.base import Conditioning, History, VideoModel
from flowcache.sampling.full import together
from flowcache.sampling.guidance import branches, guide
from flowcache.sampling.records import FinishedChunk, NotFinite, SamplerSettings, Texts, Visit
from flowcache.sampling.schedule import Row, schedule, whole_chunks
from flowcache.sampling.solver import SolverState, UniPC, sigmas, timesteps


@torch.inference_mode()
def denoise(
    model: VideoModel,
    noise: Tensor,
    texts: Texts,
    settings: SamplerSettings,
    policy: Policy,
    prefix: Tensor | None = None,
    condition_noise_of: Callable[[int], Tensor] | None = None,
    observe: Callable[[Visit], None] | None = None,
    end: Tensor | None = None,
    history: History | None = None,
) -> Iterator[FinishedChunk]:
    """Denoise the window `noise` [C, F, H, W], F a whole number of chunks.

    prefix [C, P, H, W] replaces its first P frames. Whole chunks of it condition what follows: they get
    timestep `condition_noise` and are noised to it by condition_noise_of(row) [C, P, H, W] (chunks' part), and are
    not yielded. A rest of P that fills no chunk (the one frame of an image, say) is held inside its chunk:
    timestep 0 at every step, and unchanged in the result. So is `end` [C, E, H, W], the last E frames of the
    window, all in its last chunk. ValueError where these don't fit the window or each other.
    """
    began = time.perf_counter()
    window = _Window(model, noise, texts, settings, policy, prefix, condition_noise_of, observe, end, history)
    for row in range(len(window.rows)):
        window.run(row)
        window.charge(row, time.perf_counter() - began)
        for chunk in window.finished_in(row):
            yield window.result(chunk)
        began = time.perf_counter()


def capacity(rows: Sequence[Row], steps: int, ready: int, clean: int) -> int:
    """Most chunks whose K/V are held at once: `clean` finished ones, and all others that have started.

    Finished ones are cut down when a chunk after them is computed, as every chunk's first step is; not in row 0.
    """
    started = [max(ready, sum(index > 0 for index in row.index)) for row in rows]
    finished = [0, *(sum(index > steps for index in row.index) for row in rows[1:])]
    return max(s - max(f - clean, 0) for s, f in zip(started, finished, strict=True))


class _Window:
    """State of one call: latents, K/V, and per chunk what solver and reuse policy carry along."""

    def __init__(self, model, noise, texts, settings, policy, prefix, condition_noise_of, observe, end, history):
        self.model, self.settings, self.policy = model, settings, policy
        self.condition_noise_of, self.observe = condition_noise_of, observe
        frames = noise.shape[1]
        self.chunks = whole_chunks(frames, settings.chunk)
        held, closing = (0 if part is None else part.shape[1] for part in (prefix, end))
        self.ready = held // settings.chunk
        self._check(held, closing, frames, texts)
        parts = [part for part in (prefix, noise[:, held : frames - closing], end) if part is not None]
        start = torch.cat([part.to(model.device, torch.float32) for part in parts], dim=1)
        self.latents = list(start.split(settings.chunk, dim=1))
        # Which frames of each chunk are given; those of whole prefix chunks are not denoised at all.
        given = [self.ready * settings.chunk <= frame < held or frame >= frames - closing for frame in range(frames)]
        self.given = torch.tensor(given).split(settings.chunk)

        levels = sigmas(settings.steps, settings.shift)
        self.timesteps = timesteps(levels)
        self.rows = schedule(frames, settings.chunk, self.timesteps, settings.ar_step, held)
        self.solver = UniPC(levels, overwritten=True)
        self.solver_states = [SolverState()] * self.chunks

        self.branches = branches(settings.guidance)
        self.texts = [model.text(text.to(model.device)) for text in (texts.positive, texts.negative)[: self.branches]]
        grids = [model.grid(x[None], chunk * settings.chunk) for chunk, x in enumerate(self.latents)]
        self.grids, self.ropes = grids, [model.rope(grid) for grid in grids]
        self.store = KVStore(
            (model.layers, self.branches, model.heads, model.head_dim),
            grids[0].tokens,
            self._capacity(),
            model.dtype,
            model.device,
            policy.clean,
            policy.select(grids[0].tokens // settings.chunk, grids[0].tokens),
            history,
        )
        self.conditionings: dict[tuple[float, ...], Conditioning] = {}
        self.reuse_states = {(c, b): ReuseState() for c in range(self.chunks) for b in range(self.branches)}
        self.joint_state, self.joint_decisions = ReuseState(), {}
        self.residuals: dict[tuple[int, int], Tensor] = {}
        self.computed, self.reused, self.seconds = ([0] * self.chunks for _ in range(3))

    def _check(self, held: int, closing: int, frames: int, texts: Texts) -> None:
        if closing > self.settings.chunk:
            raise ValueError(f"an end of {closing} latent frames is longer than a chunk of {self.settings.chunk}")
        if held + closing >= frames:
            raise ValueError(f"{held} given latent frames before and {closing} after leaves nothing of {frames}")
        if self.ready and self.settings.condition_noise > 0 and self.condition_noise_of is None:
            raise ValueError("a prefix with condition_noise > 0 needs condition_noise_of")
        if branches(self.settings.guidance) == 2 and texts.negative is None:
            raise ValueError(f"guidance {self.settings.guidance} needs negative text embeddings")

    def _capacity(self) -> int:
        """Chunks whose K/V need room."""
        if self.policy.attention == "full":
            return 0
        clean = self.policy.clean
        return self.chunks if clean is None else capacity(self.rows, self.settings.steps, self.ready, clean)

    def run(self, row: int) -> None:
        """One row of the schedule: every chunk that is updated takes its next step."""
        if self.policy.attention == "full":
            self.update_together(row)
            return
        for chunk in self.visited(row):
            self.visit(row, chunk)

    def visited(self, row: int) -> list[int]:
        """Chunks forwarded in this row, in order."""
        update = self.rows[row].update
        if self.policy.history == "rerun":
            last = max(chunk for chunk in range(self.chunks) if update[chunk])
            return list(range(last + 1))
        prefix = range(self.ready) if row == 0 or self.policy.renoise else range(0)
        refreshed = self.finished_in(row - 1) if self.policy.history == "refresh" and row else []
        return [*prefix, *refreshed, *(chunk for chunk in range(self.chunks) if update[chunk])]

    def finished_in(self, row: int) -> list[int]:
        """Chunks that take their last step in this row."""
        return [chunk for chunk, index in enumerate(self.rows[row].index) if index == self.settings.steps]

    def finished(self, row: int) -> int:
        """Chunks whose K/V are final: after their last step (even in this row), or once they are refreshed."""
        last = self.settings.steps + (self.policy.history == "refresh")
        return sum(index >= last for index in self.rows[row].index)

    def charge(self, row: int, seconds: float) -> None:
        """Share a row's time between the chunks that it updates; what else ran in it, ran for them."""
        updated = [chunk for chunk, update in enumerate(self.rows[row].update) if update]
        for chunk in updated:
            self.seconds[chunk] += seconds / len(updated)

    def visit(self, row: int, chunk: int) -> None:
        if self.rows[row].update[chunk]:
            self.update(row, chunk)
        else:
            self.reread(row, chunk)

    def update(self, row: int, chunk: int) -> None:
        """Take the chunk's next step."""
        step, (x, timestep) = self.rows[row].index[chunk] - 1, self.seen(row, chunk)
        conditioning = self.condition(timestep, chunk)
        tokens = self.model.embed(x[None])
        signal = self.model.signal(conditioning, tokens)
        velocities = []
        for branch in range(self.branches):
            key = chunk, branch
            if self.policy.joint:
                decision = self.joint_decision(row)
            else:
                decision, self.reuse_states[key] = decide(
                    self.policy.reuse, self.reuse_states[key], signal, step, self.settings.steps
                )
            if decision.compute:
                out, seen = self.transform(row, chunk, branch, tokens, conditioning)
                self.computed[chunk] += 1
                if self.policy.reuse:
                    self.residuals[key] = out - tokens
            else:
                out, seen = tokens + self.residuals[key], 0
                self.reused[chunk] += 1
            velocities.append(self.model.project(out, conditioning, self.grids[chunk])[0].float())
            self.report(row, chunk, branch, step, decision, x, velocities[-1], seen)
        self.advance(chunk, step, velocities)

    def update_together(self, row: int) -> None:
        """Take the next step of every updated chunk; all chunks, started or not, attend to one another."""
        inputs = [self.seen(row, chunk) for chunk in range(self.chunks)]
        times = torch.cat([self.times(timestep, chunk) for chunk, (_, timestep) in enumerate(inputs)])
        latents = torch.cat([x for x, _ in inputs], dim=1)[None]
        velocities = together(
            self.model, latents, times[None].to(self.model.device), self.texts, self.settings.fps, self.store.history
        )
        parts = [velocity[0].float().split(self.settings.chunk, dim=1) for velocity in velocities]
        seen = self.chunks * self.grids[0].tokens
        for chunk, (x, _) in enumerate(inputs):
            update = self.rows[row].update[chunk]
            step = self.rows[row].index[chunk] - 1 if update else -1
            for branch, part in enumerate(parts):
                self.report(row, chunk, branch, step, ALWAYS, x, part[chunk] if update else None, seen)
            if update:
                self.computed[chunk] += self.branches
                self.advance(chunk, step, [part[chunk] for part in parts])

    def advance(self, chunk: int, step: int, velocities: list[Tensor]) -> None:
        """The solver's step, which leaves given frames as they are."""
        x, velocity = self.latents[chunk], guide(velocities, self.settings.guidance)
        result, self.solver_states[chunk] = self.solver.step(step, velocity, x, self.solver_states[chunk])
        given = self.given[chunk]
        result[:, given] = x[:, given]
        self.latents[chunk] = result
        if step == self.settings.steps - 1 and not result.isfinite().all():
            raise NotFinite(chunk)

    def joint_decision(self, row: int) -> Decision:
        """One for the whole window, as TeaCache decides: from the timesteps of all frames, rows being its steps."""
        if row not in self.joint_decisions:
            now, grid = self.rows[row], replace(self.grids[0], frames=self.chunks * self.settings.chunk)
            times = torch.cat([self.times(float(timestep), chunk) for chunk, timestep in enumerate(now.timesteps)])
            conditioning = self.model.condition(times[None].to(self.model.device), grid, self.settings.fps)
            signal = self.model.signal(conditioning, None)
            decision, state = decide(self.policy.reuse, self.joint_state, signal, row, len(self.rows))
            if any(index == 1 for index in now.index):  # what begins has nothing to reuse
                decision, state = ALWAYS, ReuseState(signal)
            self.joint_decisions[row], self.joint_state = decision, state
        return self.joint_decisions[row]

    def seen(self, row: int, chunk: int) -> tuple[Tensor, float]:
        """The chunk's latents and timestep as the model sees them in this row: a prefix is noised a little."""
        x, timestep = self.latents[chunk], float(self.rows[row].timesteps[chunk])
        if chunk < self.ready and self.settings.condition_noise > 0:
            timestep, size = self.settings.condition_noise, self.settings.chunk
            noise = self.condition_noise_of(row)[:, chunk * size : (chunk + 1) * size].to(x)
            x = noise * (timestep / 1000) + x * (1 - timestep / 1000)
        return x, timestep

    def reread(self, row: int, chunk: int) -> None:
        """Forward a prefix or a finished chunk for its K/V alone."""
        x, timestep = self.seen(row, chunk)
        conditioning = self.condition(timestep, chunk)
        tokens = self.model.embed(x[None])
        for branch in range(self.branches):
            _, seen = self.transform(row, chunk, branch, tokens, conditioning)
            self.report(row, chunk, branch, -1, ALWAYS, x, None, seen)

    def transform(
        self, row: int, chunk: int, branch: int, tokens: Tensor, conditioning: Conditioning
    ) -> tuple[Tensor, int]:
        """The chunk's tokens after all layers, and how many tokens of K/V they saw."""
        first = finished = 0
        if self.policy.clean is not None:
            # As published, a prefix counts as clean, and is seen at all, only after the first row.
            first = min(self.ready, chunk) if row == 0 else 0
            finished = min(self.finished(row), chunk) if row else 0
        attend, seen = self.store.view(branch, chunk, first, finished)
        return self.model.transform(tokens, conditioning, self.texts[branch], self.ropes[chunk], attend), seen

    def times(self, timestep: float, chunk: int) -> Tensor:
        """The timestep of each of the chunk's frames [f], on the CPU: 0 where the frame is given."""
        return torch.where(self.given[chunk], 0.0, timestep)

    def condition(self, timestep: float, chunk: int) -> Conditioning:
        """The same for every chunk without given frames, so computed once for each timestep."""
        times = self.times(timestep, chunk)
        key = tuple(times.tolist())
        if key not in self.conditionings:
            times = times[None].to(self.model.device)
            self.conditionings[key] = self.model.condition(times, self.grids[chunk], self.settings.fps)
        return self.conditionings[key]

    def report(self, row, chunk, branch, step, decision, latents, velocity, seen) -> None:
        if self.observe:
            self.observe(Visit(row, chunk, branch, step, decision, latents, velocity, seen))

    def result(self, chunk: int) -> FinishedChunk:
        for branch in range(self.branches):
            self.residuals.pop((chunk, branch), None)
        return FinishedChunk(
            chunk, self.latents[chunk], self.computed[chunk], self.reused[chunk], self.seconds[chunk], self.store.bytes
        )
