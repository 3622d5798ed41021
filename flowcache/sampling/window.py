"""What one call of the denoise loop holds, and how it follows one row of its walk."""

from dataclasses import replace

import torch
from torch import Tensor

from flowcache.cache.kv_cache import KVStore
from flowcache.cache.reuse import ALWAYS, Decision, ReuseState, decide
from flowcache.models.base import Conditioning
from flowcache.sampling.joint import joint_forward, self_only
from flowcache.sampling.plan import ChunkForward, SamplingStep
from flowcache.sampling.records import FinishedChunk, NotFinite, Visit
from flowcache.sampling.text_inputs import Captions

BATCHED_TOKENS = 2048  # chunks of so many tokens or fewer leave cores idle; larger ones would only take more memory


class Window:
    """Latents, K/V, and per chunk what solver and reuse policy carry along."""

    def __init__(self, model, noise, texts, settings, policy, prefix, condition_noise_of, observe, end, kv_sharding):
        self.model, self.settings, self.policy = model, settings, policy
        self.condition_noise_of, self.observe = condition_noise_of, observe
        frames = noise.shape[1]
        held, closing = (0 if part is None else part.shape[1] for part in (prefix, end))
        self.plan = settings.plan(frames, policy, held)
        self.chunks, self.ready = frames // settings.chunk, held // settings.chunk
        self._check(held, closing, frames)
        parts = [part for part in (prefix, noise[:, held : frames - closing], end) if part is not None]
        start = torch.cat([part.to(model.device, torch.float32) for part in parts], dim=1)
        self.latents = list(start.split(settings.chunk, dim=1))
        # Which frames of each chunk are given; those of whole prefix chunks are not denoised at all.
        given = [self.ready * settings.chunk <= frame < held or frame >= frames - closing for frame in range(frames)]
        self.given = torch.tensor(given).split(settings.chunk)

        self.solver_states = [self.plan.solver.start] * self.chunks
        kinds = {forward.text for tick in self.plan.rows for forward in tick.forwards}
        self.texts = Captions(model, texts, self.chunks, kinds)
        self.grids = [model.grid(x[None], chunk * settings.chunk) for chunk, x in enumerate(self.latents)]
        self.ropes: dict[int, object] = {}  # of the chunks under way
        tokens = self.grids[0].tokens
        self.batched = tokens <= BATCHED_TOKENS and self.texts.of_one_length
        self.store = KVStore(
            (model.layers, self.plan.kv_branches, model.kv_heads, model.head_dim),
            tokens,
            0 if policy.attention == "full" else self.plan.capacity,
            model.dtype,
            model.device,
            self.plan.budget,
            policy.select(tokens // settings.chunk, tokens),
            kv_sharding,
        )
        self.conditionings: dict[tuple[float | None, ...], Conditioning] = {}
        self.reuse_states = [ReuseState() for _ in range(self.chunks)]
        self.joint_state, self.joint_decisions = ReuseState(), {}
        self.stored: dict[tuple[int, int], Tensor] = {}  # what skipped steps take, by chunk and branch
        self.decisions: dict[tuple[int, int], list[str]] = {}  # as in FinishedChunk, by chunk and branch
        self.computed, self.reused, self.seconds = ([0] * self.chunks for _ in range(3))

    def _check(self, held: int, closing: int, frames: int) -> None:
        if closing > self.settings.chunk:
            raise ValueError(f"an end of {closing} latent frames is longer than a chunk of {self.settings.chunk}")
        if held + closing >= frames:
            raise ValueError(f"{held} given latent frames before and {closing} after leaves nothing of {frames}")
        if self.ready and self.plan.prefix_timestep > 0 and self.condition_noise_of is None:
            raise ValueError("a prefix with condition_noise > 0 needs condition_noise_of")

    def rope(self, chunk: int) -> object:
        """Of a chunk at its place; computed once while it is under way."""
        if chunk not in self.ropes:
            self.ropes[chunk] = self.model.rope(self.grids[chunk])
        return self.ropes[chunk]

    def forget(self, tick: SamplingStep) -> None:
        """Drop the texts and positions that the row did not need, so that they do not grow with the window."""
        self.texts.keep({(forward.text, forward.chunk) for forward in tick.forwards})
        chunks = {forward.chunk for forward in tick.forwards}
        self.ropes = {chunk: rope for chunk, rope in self.ropes.items() if chunk in chunks}

    def run(self, row: int) -> None:
        """One row of the schedule: forwards in order, then every chunk that is updated takes its step."""
        tick = self.plan.rows[row]
        inputs = {chunk: self.seen(row, chunk) for chunk in dict.fromkeys(f.chunk for f in tick.forwards)}
        if self.policy.attention == "full":
            velocities, decisions = self.run_together(row, tick, inputs), {}
        else:
            velocities, decisions = self.run_in_order(row, tick, inputs)
        for chunk, step in tick.steps.items():
            self.advance(chunk, step, velocities[chunk], decisions.get(chunk, ALWAYS))
        self.forget(tick)

    def run_in_order(
        self, row: int, tick: SamplingStep, inputs: dict[int, Tensor]
    ) -> tuple[dict[int, list[Tensor]], dict[int, Decision]]:
        """The velocities of each updated chunk, by branch, and what was decided."""
        steps, embedded = tick.steps, -1
        velocities: dict[int, list[Tensor]] = {chunk: [] for chunk in steps}
        decisions: dict[int, Decision] = {}
        last = self._last_kept(row, tick, inputs, decisions) if tick.cut_after else None
        for group in self.groups(tick):
            forward, chunk = group[0], group[0].chunk
            if chunk != embedded:
                tokens, embedded = self.model.embed(inputs[chunk][None]), chunk
            conditioning = self.condition(forward, tick)
            if forward.step >= 0 and chunk not in decisions:
                decisions[chunk] = self.decide(row, forward, conditioning, tokens)
            decision = decisions[chunk] if forward.step >= 0 else ALWAYS
            found, seen = self.visit(tick, group, decision, tokens, conditioning, group[-1] is last)
            for each, velocity in zip(group, found, strict=True):
                self.report(row, each, decision, inputs[chunk], velocity, seen)
            velocities.get(chunk, []).extend(velocity for velocity in found if velocity is not None)
        return velocities, decisions

    def groups(self, tick: SamplingStep) -> list[tuple[ChunkForward, ...]]:
        """The forwards in order; those that differ in text and memory alone run as one batch, where that is faster."""
        groups: list[tuple[ChunkForward, ...]] = []
        for forward in tick.forwards:
            if groups and self.batched and groups[-1][-1].can_batch_with(forward):
                groups[-1] = *groups[-1], forward
            else:
                groups.append((forward,))
        return groups

    def visit(
        self,
        tick: SamplingStep,
        group: tuple[ChunkForward, ...],
        decision: Decision,
        tokens: Tensor,
        conditioning: Conditioning,
        last: bool,
    ) -> tuple[list[Tensor | None], int]:
        """A batch of forwards, or what stands for it: their velocities, and how many tokens of K/V each saw."""
        chunk, step, residual = group[0].chunk, group[0].step, self.policy.repeats == "residual"
        nothing: list[Tensor | None] = [None] * len(group)
        if step >= 0:
            counts = self.computed if decision.compute else self.reused
            counts[chunk] += len(group)
        if decision.compute:
            out, seen = self.transform(tick, group, tokens, conditioning, last)
            if self.policy.reuse and residual and step >= 0:
                for forward, row in zip(group, out - tokens, strict=True):
                    self.stored[chunk, forward.branch] = row
        elif residual:
            out, seen = tokens + torch.stack([self.stored[chunk, forward.branch] for forward in group]), 0
        else:
            return nothing, 0
        if step < 0:
            return nothing, seen
        return list(self.model.project(out, conditioning, self.grids[chunk]).float()), seen

    def transform(
        self,
        tick: SamplingStep,
        group: tuple[ChunkForward, ...],
        tokens: Tensor,
        conditioning: Conditioning,
        last: bool,
    ) -> tuple[Tensor, int]:
        """The chunk's tokens after all layers, a row for each forward, and how many tokens of K/V each saw."""
        forward, chunk = group[0], group[0].chunk
        text = self.texts.take([each.text for each in group], chunk)
        if forward.kv_branch is None:
            rope = self.model.rope(replace(self.grids[chunk], first_frame=0))
            alone = self_only(self.store.sharding, self.grids[chunk].tokens)
            return self.model.transform(tokens, conditioning, text, rope, alone), self.grids[chunk].tokens
        then = tick.cut_after if last else 0
        kv_branches = range(forward.kv_branch, forward.kv_branch + len(group))
        view, seen = self.store.view(kv_branches, chunk, forward.first, min(tick.clean, chunk), then)
        rows = tokens.expand(len(group), -1, -1)
        return self.model.transform(rows, conditioning, text, self.rope(chunk), view), seen

    def run_together(self, row: int, tick: SamplingStep, inputs: dict[int, Tensor]) -> dict[int, list[Tensor]]:
        """All chunks, started or not, attend to one another: the velocities of each, by branch."""
        first = [forward for forward in tick.forwards if forward.branch == 0]
        times = torch.cat([self.times(forward) for forward in first])[None].to(self.model.device)
        latents = torch.cat(list(inputs.values()), dim=1)[None]
        texts = [self.texts.take([forward.text], 0) for forward in tick.forwards if forward.chunk == 0]
        outs = joint_forward(self.model, latents, times, texts, self.settings.fps, self.store.sharding)
        parts = [velocity[0].float().split(self.settings.chunk, dim=1) for velocity in outs]
        seen = self.chunks * self.grids[0].tokens
        for forward in tick.forwards:
            updated = forward.step >= 0
            self.computed[forward.chunk] += updated
            velocity = parts[forward.branch][forward.chunk] if updated else None
            self.report(row, forward, ALWAYS, inputs[forward.chunk], velocity, seen)
        return {chunk: [part[chunk] for part in parts] for chunk in tick.steps}

    def advance(self, chunk: int, step: int, velocities: list[Tensor], decision: Decision) -> None:
        """The solver's step, which leaves given frames as they are."""
        x, repeats = self.latents[chunk], self.policy.repeats
        if repeats == "increment" and not decision.compute:
            result = x + self.stored[chunk, 0]
        else:
            velocity = self.plan.guide(step, velocities) if velocities else self.stored[chunk, 0]
            result, self.solver_states[chunk] = self.plan.solver.step(step, velocity, x, self.solver_states[chunk])
            if self.policy.reuse and repeats != "residual":
                self.stored[chunk, 0] = velocity if repeats == "velocity" else result - x
        given = self.given[chunk]
        result[:, given] = x[:, given]
        self.latents[chunk] = result
        if step == self.plan.steps - 1 and not result.isfinite().all():
            raise NotFinite(chunk)

    def decide(self, row: int, forward: ChunkForward, conditioning: Conditioning, tokens: Tensor) -> Decision:
        """Whether the chunk's step is computed."""
        if self.policy.reuse is None:
            return ALWAYS
        if self.policy.joint:
            return self.joint_decision(row)
        signal = self.model.signal(conditioning, tokens, self.grids[forward.chunk])
        own_last = self.policy.last_step or row == len(self.plan.rows) - 1
        steps = self.plan.steps if own_last else self.plan.steps + 1  # no step is the last one then
        decision, self.reuse_states[forward.chunk] = decide(
            self.policy.reuse, self.reuse_states[forward.chunk], signal, forward.step, steps, self.store.sharding.total
        )
        return decision

    def joint_decision(self, row: int) -> Decision:
        """One for the whole window, as TeaCache decides: from the timesteps of all frames, rows being its steps."""
        if row not in self.joint_decisions:
            tick, grid = self.plan.rows[row], replace(self.grids[0], frames=self.chunks * self.settings.chunk)
            times = [self.times_of(timestep, chunk) for chunk, timestep in enumerate(self.plan.timesteps[row])]
            times = torch.cat(times)[None].to(self.model.device)
            signal = self.model.signal(self.model.condition(times, grid, self.settings.fps), None, grid)
            decision, state = decide(self.policy.reuse, self.joint_state, signal, row, len(self.plan.rows))
            if 0 in tick.steps.values():  # what begins has nothing to reuse
                decision, state = ALWAYS, ReuseState(signal)
            self.joint_decisions[row], self.joint_state = decision, state
        return self.joint_decisions[row]

    def _last_kept(self, row, tick, inputs, decisions) -> ChunkForward | None:
        """The last forward that is computed and leaves K/V behind; decides for all chunks on the way."""
        for forward in tick.forwards:
            if forward.step >= 0 and forward.chunk not in decisions:
                tokens = self.model.embed(inputs[forward.chunk][None])
                decisions[forward.chunk] = self.decide(row, forward, self.condition(forward, tick), tokens)
        kept = [
            forward
            for forward in tick.forwards
            if forward.kv_branch is not None and (forward.step < 0 or decisions[forward.chunk].compute)
        ]
        return kept[-1] if kept else None

    def seen(self, row: int, chunk: int) -> Tensor:
        """The chunk's latents as the model sees them in this row: a prefix is noised a little."""
        x = self.latents[chunk]
        if chunk < self.ready and self.plan.prefix_timestep > 0:
            share, size = self.plan.prefix_timestep / 1000, self.settings.chunk
            noise = self.condition_noise_of(row)[:, chunk * size : (chunk + 1) * size].to(x)
            x = noise * share + x * (1 - share)
        return x

    def times(self, forward: ChunkForward) -> Tensor:
        return self.times_of(forward.timestep, forward.chunk)

    def times_of(self, timestep: float, chunk: int) -> Tensor:
        """The timestep of each of the chunk's frames [f], on the CPU."""
        held = timestep if self.plan.given_timestep is None else self.plan.given_timestep
        return torch.where(self.given[chunk], held, timestep)

    def condition(self, forward: ChunkForward, tick: SamplingStep) -> Conditioning:
        """The same for every chunk without given frames, so computed once for each timestep."""
        times = self.times(forward)
        key = (*times.tolist(), tick.distill)
        if key not in self.conditionings:
            times = times[None].to(self.model.device)
            self.conditionings[key] = self.model.condition(
                times, self.grids[forward.chunk], self.settings.fps, tick.distill
            )
        return self.conditionings[key]

    def charge(self, tick: SamplingStep, seconds: float) -> None:
        """Share a row's time between the chunks that it updates; what else ran in it, ran for them."""
        for chunk in tick.steps:
            self.seconds[chunk] += seconds / len(tick.steps)

    def report(self, row, forward: ChunkForward, decision, latents, velocity, seen) -> None:
        key = forward.chunk, forward.branch
        if forward.step >= 0:
            self.decisions.setdefault(key, ["-"] * self.plan.steps)[forward.step] = "01"[decision.compute]
        if self.observe:
            visit = Visit(row, forward.chunk, forward.branch, forward.step, decision, latents, velocity, seen)
            self.observe(visit)

    def result(self, chunk: int) -> FinishedChunk:
        for key in [key for key in self.stored if key[0] == chunk]:
            del self.stored[key]
        self.reuse_states[chunk] = ReuseState()  # MAGI-1's signal is as large as the chunk's tokens
        return FinishedChunk(
            chunk, self.latents[chunk], self.computed[chunk], self.reused[chunk], self.seconds[chunk], self.store.bytes,
            tuple("".join(taken) for (own, _), taken in sorted(self.decisions.items()) if own == chunk),
        )  # fmt: skip
