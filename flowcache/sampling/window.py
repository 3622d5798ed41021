"""What one call of the denoise loop holds, and a row of its plan: decide, forward, advance."""

from collections import Counter
from collections.abc import Callable, Mapping

from torch import Tensor

from flowcache.cache.kv_cache import KVStore
from flowcache.cache.policy import Policy
from flowcache.cache.step_cache import StepCache
from flowcache.cache.step_rule import ALWAYS, Decision
from flowcache.models.base import KVSharding, VideoModel
from flowcache.models.upload import uploaded
from flowcache.sampling.calibrated import Memory
from flowcache.sampling.chunk_inputs import ChunkInputs
from flowcache.sampling.executor import Batch, executor_of
from flowcache.sampling.latents import Given, Latents
from flowcache.sampling.plan import ChunkForward, SamplingStep, Settings, TextKind, carried
from flowcache.sampling.planning import plan_for
from flowcache.sampling.records import FinishedChunk, Texts, Visit
from flowcache.sampling.residuals import Residuals
from flowcache.sampling.text_inputs import TextInputs

Observe = Callable[[Visit], None]
StepNoise = Callable[[int, int], Tensor]  # (chunk of the window, step) -> standard normal values [C, f, H, W]


class Window:
    """Latents, K/V, and per chunk what solver and reuse policy carry along."""

    def __init__(
        self,
        model: VideoModel,
        noise: Tensor,
        texts: Texts,
        settings: Settings,
        policy: Policy,
        given: Given,
        observe: Observe | None = None,
        kv_sharding: KVSharding | None = None,
        step_noise: StepNoise | None = None,
        packed: bool = True,
    ):
        self.policy, self.observe, self.step_noise = policy, observe, step_noise
        self.plan = plan = plan_for(settings, noise.shape[1], policy, given.before)
        self.model, full = model, policy.attention == "full"
        self.latents = Latents(noise, given, settings.chunk, plan.prefix_timestep, model.device)
        kinds: set[TextKind] = {forward.text for row in plan.rows for forward in row.forwards}
        self.inputs = ChunkInputs(
            model, TextInputs(model, texts, len(self.latents), kinds), self.latents, plan, settings.fps
        )
        tokens = self.inputs.grids[0].tokens
        self.store = KVStore(
            (model.layers, plan.kv_branches, model.kv_heads, model.head_dim),
            tokens,
            0 if full else plan.capacity,
            model.dtype,
            model.device,
            plan.budget,
            policy.select(tokens // settings.chunk, tokens),
            kv_sharding,
            policy.kv_buffer,
            late=policy.asks_late,
        )
        self.executor = executor_of(model, self.inputs, self.store, full, packed)
        total = alike if model.timed_signal else self.store.sharding.total
        self.rule = policy.step_rule(plan.steps, len(plan.rows), total, plan.cycle, plan.kv_branches)
        self.caches: dict[int | None, StepCache] = {}  # of chunks under way; None: of all together
        self.solver_states = [plan.solver_of(chunk).start for chunk in range(len(self.latents))]
        looked = [plan.solver_of(0), plan.solver] if policy.steps else []
        self.residuals = Residuals(tuple(map(carried, looked)))
        self.decisions: dict[tuple[int, int], list[str]] = {}  # as in FinishedChunk, by chunk and branch
        self.seconds = [0.0] * len(self.latents)
        self.forwards = 0  # since the last chunk was finished
        for forward in plan.spared:
            self.mark(forward, "0")

    def run(self, number: int) -> None:
        """One row of the plan."""
        self.take(number, self.compute(number))

    def compute(self, number: int) -> dict[int, list[Tensor]]:
        """What the row forwards: of each chunk that takes a step the velocities that have a weight, by branch."""
        row = self.plan.rows[number]
        self.inputs.begin({chunk: self.latents.seen(number, chunk) for chunk in {f.chunk: 0 for f in row.forwards}})
        decisions = self.decide(number, row)
        return self.forward(number, row, decisions)

    def take(self, number: int, velocities: Mapping[int, list[Tensor]]) -> None:
        """The steps of the row's chunks."""
        row = self.plan.rows[number]
        for chunk, step in row.steps.items():
            self.advance(chunk, step, velocities[chunk])
        self.inputs.forget(row)

    def decide(self, number: int, row: SamplingStep) -> dict[int, Decision]:
        """For every chunk that takes a step, before anything is forwarded."""
        first = {forward.chunk: forward for forward in reversed(row.forwards) if forward.step >= 0}

        def signal(chunk: int | None) -> Tensor:
            if self.model.timed_signal:
                of = self.policy.reuse.signal if self.policy.reuse else "blocks"
                return self.inputs.time_signal(number, None if chunk is None else first[chunk], of)
            if chunk is None:
                everything = self.inputs.conditioning_of_all(self.plan.timesteps[number])
                return self.model.signal(everything, None, self.inputs.whole)
            conditioning = self.inputs.conditioning(first[chunk], row.distill)
            return self.model.signal(conditioning, self.inputs.tokens(chunk), self.inputs.grids[chunk])

        return self.rule.decide(number, row.steps, signal)

    def forward(self, number: int, row: SamplingStep, decisions: Mapping[int, Decision]) -> dict[int, list[Tensor]]:
        """The velocities of each chunk that takes a step, by branch; none where what is reused has none."""
        velocities: dict[int, dict[int, Tensor]] = {chunk: {} for chunk in row.steps}  # by branch

        left = Counter(forward.chunk for forward in row.forwards)

        def done(forward: ChunkForward, velocity: Tensor | None, seen: int) -> None:
            if velocity is not None:
                velocities[forward.chunk][forward.branch] = velocity
            self.report(number, forward, decisions, velocity, seen)
            left[forward.chunk] -= 1
            if not left[forward.chunk]:
                self.inputs.release(forward.chunk)

        def take(batch: Batch) -> None:
            for one in zip(batch.forwards, self.executor.project(row, batch), batch.seen, strict=True):
                done(*one)

        chosen = {forward: self.decision(forward, decisions).compute for forward in row.forwards}
        # First what is reused: SkyReels-V2's TeaCache may replace it in the same row.
        for unit in self.executor.units([f for f, compute in chosen.items() if not compute and f.step >= 0]):
            hidden = self.cache(unit.owner).stand_in(self.slot(unit.forwards[0], decisions), unit.tokens)
            if hidden is None:
                done(unit.forwards[0], None, 0)
            else:
                take(Batch(unit.forwards, hidden[None], [0] * len(unit.forwards)))
        for batch in self.executor.transform(row, [forward for forward, compute in chosen.items() if compute]):
            if self.policy.reuse:
                self.keep(batch, decisions)
            take(batch)
            del batch  # before the next one is run
        idle = self.plan.weightless
        return {
            chunk: [own[branch] for branch in sorted(own) if (row.steps[chunk], branch) not in idle]
            for chunk, own in velocities.items()
        }

    def decision(self, forward: ChunkForward, decisions: Mapping[int, Decision]) -> Decision:
        """A forward that takes no step is computed, unless all chunks reuse together."""
        if self.policy.whole:
            return next(iter(decisions.values())).of(forward.branch)
        return decisions[forward.chunk].of(forward.branch) if forward.step >= 0 else ALWAYS

    def slot(self, forward: ChunkForward, decisions: Mapping[int, Decision]) -> int:
        """Under which number the forward's residual is kept."""
        own = self.decision(forward, decisions).slot
        return forward.branch if own is None else own

    def keep(self, batch: Batch, decisions: Mapping[int, Decision]) -> None:
        """Let the caches see what was computed."""
        for unit, hidden in zip(self.executor.units(batch.forwards), batch.hidden, strict=True):
            first = unit.forwards[0]
            if first.step >= 0 or self.policy.whole:
                self.cache(unit.owner).keep(self.slot(first, decisions), unit.tokens, hidden)

    def cache(self, owner: int | None) -> StepCache:
        return self.caches.setdefault(owner, self.policy.step_cache())

    def advance(self, chunk: int, step: int, velocities: list[Tensor]) -> None:
        """The chunk's step, by its solver or by what is reused."""
        latents = self.latents.chunks[chunk]

        def solve(velocity: Tensor) -> Tensor:
            result, self.solver_states[chunk] = self.plan.solver_of(chunk).step(
                self.plan.place(chunk, step),
                velocity,
                latents,
                self.solver_states[chunk],
                lambda: self.noise(chunk, step),
            )
            return result

        velocity = self.plan.guide(step, velocities) if velocities else None
        result = self.cache(chunk).advance(latents, velocity, solve)
        after = self.solver_states[chunk]
        guided = after.guided[0] if isinstance(after, Memory) else velocity  # a calibrated solver guides itself
        if guided is not None:
            free = (self.latents.free(chunk, values) for values in (guided, latents))
            self.residuals.see(chunk, self.plan.place(chunk, step), *free)
        self.latents.replace(chunk, result, last=step == self.plan.last(chunk))

    def noise(self, chunk: int, step: int) -> Tensor:
        if self.step_noise is None:
            raise ValueError("this solver draws noise between steps: denoise needs step_noise")
        return uploaded(self.step_noise(chunk, step), self.model.device, self.latents.chunks[chunk].dtype)

    def charge(self, row: SamplingStep, seconds: float) -> None:
        """Share a row's time between the chunks that it updates; what else ran in it, ran for them."""
        for chunk in row.steps:
            self.seconds[chunk] += seconds / len(row.steps)

    def report(
        self,
        number: int,
        forward: ChunkForward,
        decisions: Mapping[int, Decision],
        velocity: Tensor | None,
        seen: int,
    ) -> None:
        chunk, branch, step = forward.chunk, forward.branch, forward.step
        decision = self.decision(forward, decisions)
        self.forwards += decision.compute
        if step >= 0:
            self.mark(forward, "01"[decision.compute])
        if self.observe:
            self.observe(Visit(number, chunk, branch, step, decision, self.inputs.seen[chunk], velocity, seen))

    def mark(self, forward: ChunkForward, taken: str) -> None:
        own = self.decisions.setdefault((forward.chunk, forward.branch), ["-"] * self.plan.steps)
        own[forward.step] = taken

    def result(self, chunk: int) -> FinishedChunk:
        """A chunk that took its last step; what it carried along is dropped."""
        self.rule.forget(chunk)
        self.caches.pop(chunk, None)
        decisions = tuple("".join(taken) for (own, _), taken in sorted(self.decisions.items()) if own == chunk)
        marks = "".join(decisions)
        forwards, self.forwards = self.forwards, 0
        return FinishedChunk(
            index=chunk,
            latents=self.latents.chunks[chunk],
            computed=marks.count("1"),
            reused=marks.count("0"),
            seconds=self.seconds[chunk],
            kv_bytes=self.store.bytes,
            decisions=decisions,
            forwards=forwards,
            residuals=self.residuals.read(chunk, self.store.sharding.total),
            calibration=self.plan.calibration,
        )


def alike(values: Tensor) -> Tensor:
    """The sum over ranks of what all of them have whole: as good as one's own."""
    return values
