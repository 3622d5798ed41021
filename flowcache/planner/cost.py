"""What requests will take, counted without weights: chunk forwards, FLOPs, K/V memory."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from flowcache.cache.reuse import Policy
from flowcache.families.base import Config
from flowcache.families.known import family, family_of
from flowcache.families.settings import config_of, resolve_policy, settings_of
from flowcache.inputs.segments import plan
from flowcache.records import ModelSpec, RenderRequest, Segment
from flowcache.sampling.dry_run import WindowWork, at_least, at_most, dry_run
from flowcache.sampling.plan import Settings

if TYPE_CHECKING:
    from flowcache.planner.advice import Advice
    from flowcache.planner.estimate import Estimate

ELEMENT = 2  # bytes of a value in bf16, in which published checkpoints run


@dataclass(frozen=True)
class Work:
    """forwards: of a chunk through the transformer's blocks, guidance branches counted.

    kv_bytes: of the largest window, all guidance branches, in bf16, before ranks share the heads.
    """

    forwards: int = 0
    flops: int = 0
    kv_bytes: int = 0

    def __add__(self, other: "Work") -> "Work":
        largest = max(self.kv_bytes, other.kv_bytes)
        return Work(self.forwards + other.forwards, self.flops + other.flops, largest)

    def __mul__(self, times: int) -> "Work":
        return Work(self.forwards * times, self.flops * times, self.kv_bytes)


@dataclass(frozen=True)
class Cost:
    """Of all requests together.

    without_reuse: if every one had that policy and computed every step. most, least: with their own policies,
    where every step that may be reused is computed, and where it is reused.
    estimate: of time, where that is asked for. gangs: what gangs of several sizes cost, and which to take.
    """

    videos: int
    segments: int
    chunks: int
    frames: int
    without_reuse: dict[str, Work]
    most: Work
    least: Work
    estimate: "Estimate | None" = None
    gangs: "Advice | None" = None


@dataclass(frozen=True)
class Window:
    """What the work of a segment depends on. shape: latent frames, rows, columns; given: frames that are given."""

    model: str
    settings: Settings
    shape: tuple[int, int, int]
    given: int


def cost(requests: Sequence[RenderRequest], specs: Mapping[str, ModelSpec]) -> Cost:
    """specs: model name -> spec. InputError where a model's transformer config can't be read."""
    planned = [(request, plan(request, specs[request.model])) for request in requests]
    segments = [segment for _, each in planned for segment in each]
    counted, own = counter(specs), Counter()
    for request, each in planned:
        spec = specs[request.model]
        policy = resolve_policy(request.policy, spec)
        own.update((window(request, segment, spec), policy) for segment in each)

    def total(choose: Callable[[Window, Policy], tuple[Window, Policy]]) -> Work:
        return sum((counted(*choose(*pair)) * times for pair, times in own.items()), Work())

    others = {window: compared(window, specs[window.model]) for window, _ in own}

    return Cost(
        videos=len(requests),
        segments=len(segments),
        chunks=sum(segment.chunks for segment in segments),
        frames=sum(request.frames for request in requests),
        without_reuse={
            name: total(lambda window, _, name=name: others[window][name]) for name in common(others.values())
        },
        most=total(lambda window, policy: (window, at_most(policy))),
        least=total(lambda window, policy: (window, at_least(policy))),
    )


def walker(specs: Mapping[str, ModelSpec]) -> Callable[[Window, Policy], tuple[Config, WindowWork]]:
    """A window's model, and what it takes under a policy, walked once for all windows that are alike."""
    configs = {name: config_of(spec) for name, spec in specs.items()}

    @cache
    def walked(window: Window, policy: Policy) -> tuple[Config, WindowWork]:
        config = configs[window.model]
        return config, dry_run(window.settings, window.shape, config.patch, policy, window.given)

    return walked


def counter(specs: Mapping[str, ModelSpec]) -> Callable[[Window, Policy], Work]:
    """`work` of a window under a policy, counted once for all windows that are alike."""
    walked = walker(specs)
    return cache(lambda window, policy: work(*walked(window, policy)))


def window(request: RenderRequest, segment: Segment, spec: ModelSpec) -> Window:
    """The window that `rendering.SegmentRenderer` denoises for a segment."""
    continues = segment.after is not None or (segment.shot == 0 and request.video is not None)
    given = spec.overlap if continues else int(segment.index == 0 and request.image is not None)
    frames = segment.chunks * spec.chunk + given // spec.chunk * spec.chunk
    shape = frames, request.height // spec.space_stride, request.width // spec.space_stride
    return Window(request.model, settings_of(request, spec), shape, given)


def compared(window: Window, spec: ModelSpec) -> dict[str, tuple[Window, Policy]]:
    """The windows and the policies that `Cost.without_reuse` counts, by name."""
    pairs = family(spec.family).compared(window.settings)
    return {name: (replace(window, settings=settings), policy) for name, (settings, policy) in pairs.items()}


def common(mappings: Collection[Mapping[str, object]]) -> list[str]:
    """Keys of all, in the order of the first."""
    return [key for key in next(iter(mappings), {}) if all(key in each for each in mappings)]


def work(config: Config, done: WindowWork) -> Work:
    """Of one window under one policy."""
    stored = done.kv_branches * done.kv_chunks * done.tokens
    return Work(done.forwards, flops(config, done), family_of(config).counts.kv_bytes(config, stored, ELEMENT))


def flops(config: Config, done: WindowWork) -> int:
    """Without what is negligible: timestep embeddings, norms, the solver."""
    return shared_flops(config, done) + whole_flops(config, done)


def shared_flops(config: Config, done: WindowWork) -> int:
    """What the ranks of a gang share: all layers."""
    count = family_of(config).counts
    blocks = count.block_flops(config, done.tokens, 0)
    attention = count.block_flops(config, done.tokens, done.seen) - blocks
    return done.forwards * blocks + attention


def whole_flops(config: Config, done: WindowWork) -> int:
    """What each rank does: what lies before and after the layers."""
    count = family_of(config).counts
    embedding = done.forwards * (count.embed_flops(config, done.tokens) // done.kv_branches)
    return (
        embedding + done.outputs * count.head_flops(config, done.tokens) + done.kv_branches * count.text_flops(config)
    )
