"""The denoise loop without a model: what it would forward, in which row, seeing how many tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowcache.cache.policy import Policy
from flowcache.models.base import Attend, Conditioning, Grid
from flowcache.sampling.loop import denoise
from flowcache.sampling.plan import Settings
from flowcache.sampling.planning import plan_for
from flowcache.sampling.records import Texts, Visit


class Weightless:
    """A `VideoModel` whose tensors hold no element: the loop with it costs next to nothing."""

    dtype, device = torch.float32, torch.device("cpu")
    layers, heads, kv_heads, head_dim = 0, 1, 1, 0
    timed_signal = False

    def __init__(self, patch: tuple[int, int, int]):
        self.patch = patch

    def grid(self, latents: Tensor, first_frame: int = 0) -> Grid:
        return Grid(latents.shape[2], latents.shape[3] // self.patch[1], latents.shape[4] // self.patch[2], first_frame)

    def embed(self, latents: Tensor) -> Tensor:
        return torch.empty(len(latents), self.grid(latents).tokens, 0)

    def condition(self, timesteps: Tensor, grid: Grid, fps: int, distill: float | None = None) -> Conditioning:
        return Conditioning(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), None)

    def text(self, embeddings: Tensor | None) -> None:
        return None

    @property
    def null_caption(self) -> Tensor:
        return torch.empty(1, 0, 0)

    def rope(self, grid: Grid) -> Tensor:
        return torch.empty(0)

    def transform(
        self, tokens: Tensor, conditioning: Conditioning, texts: Sequence[None], ropes: Sequence[Tensor], attend: Attend
    ) -> Tensor:
        return tokens

    def project(self, tokens: Tensor, conditioning: Conditioning, grid: Grid) -> Tensor:
        rows, columns = grid.rows * self.patch[1], grid.columns * self.patch[2]
        return torch.empty(len(tokens), 0, grid.frames, rows, columns)

    def signal(self, conditioning: Conditioning, tokens: Tensor | None, grid: Grid) -> Tensor:
        return conditioning.blocks


@dataclass(frozen=True)
class WindowWork:
    """What one window takes, all guidance branches together.

    forwards: of a chunk through the blocks. seen: tokens of K/V that they attend to, summed up.
    tokens: of a chunk. outputs: of a chunk through the head. kv_chunks: whose K/V each of the kv_branches has room for.
    steps: that its chunks take. chunks_in_flight: that are under way, or reuse, at once, at the most.
    told: `SamplingPlan.told`.
    """

    forwards: int
    seen: int
    tokens: int
    outputs: int
    kv_chunks: int
    kv_branches: int
    steps: int
    chunks_in_flight: int
    told: str = ""


def dry_run(
    settings: Settings, shape: tuple[int, int, int], patch: tuple[int, int, int], policy: Policy, given: int = 0
) -> WindowWork:
    """Go through a window of `shape` (latent frames, rows, columns) of which `given` frames are given.

    Which steps a policy would reuse may depend on weights, so it is taken at both ends: see `at_most`, `at_least`.
    """
    frames, rows, columns = shape
    visits: list[Visit] = []
    prefix = torch.empty(0, given, rows, columns) if given else None
    whole = torch.empty(0, given // settings.chunk * settings.chunk, rows, columns)
    text = torch.empty(1, 0, 0)
    model = Weightless(patch)
    for _ in denoise(
        model, torch.empty(0, frames, rows, columns), Texts(text, text), settings, policy,
        prefix, lambda row: whole, visits.append,
    ):  # fmt: skip
        pass
    plan = plan_for(settings, frames, policy, given)
    computed = [visit for visit in visits if visit.decision.compute]
    tokens = Grid(settings.chunk, rows // patch[1], columns // patch[2]).tokens
    every = plan_for(settings, frames, policy.exact, given) if plan.computed else plan
    under_way = max(len(row.steps) for row in every.rows)
    return WindowWork(
        forwards=len(computed),
        seen=sum(visit.seen for visit in computed),
        tokens=tokens,
        outputs=sum(visit.velocity is not None for visit in visits),
        kv_chunks=0 if policy.attention == "full" else plan.capacity,
        kv_branches=plan.kv_branches,
        steps=sum(len(row.steps) for row in plan.rows),
        chunks_in_flight=frames // settings.chunk if policy.attention == "full" else under_way,
        told=plan.told,
    )


def at_most(policy: Policy) -> Policy:
    """The same where as few steps are reused as may be: its most forwards."""
    return replace(policy, reuse=policy.reuse and policy.reuse.at_most())


def at_least(policy: Policy) -> Policy:
    """The same where every step is reused that may be: its fewest forwards."""
    return replace(policy, reuse=policy.reuse and policy.reuse.at_least())
