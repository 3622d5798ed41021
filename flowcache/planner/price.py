"""What a window takes under a policy on a gang of some ranks, without weights: the one price of all that is planned."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flowcache.cache.policy import Policy
from flowcache.families.base import Config
from flowcache.families.memory import GPU, Memory, rank_memory
from flowcache.families.settings import config_of, settings_of
from flowcache.inputs.segments import continues
from flowcache.parallel.mesh import head_groups
from flowcache.planner.communication import sent_bytes
from flowcache.planner.rank_work import RankWork, flops, kv_bytes, query_bytes, rank_work, residual_bytes, shape_of
from flowcache.records import ModelSpec, Precision, RenderRequest, Segment
from flowcache.sampling.dry_run import WindowWork, at_least, at_most, dry_run
from flowcache.sampling.plan import Settings


@dataclass(frozen=True)
class Window:
    """What the work of a segment depends on. shape: latent frames, rows, columns; given: frames that are given."""

    model: str
    settings: Settings
    shape: tuple[int, int, int]
    given: int


def window(request: RenderRequest, segment: Segment, spec: ModelSpec) -> Window:
    """The window that `worker.renderer.SegmentRenderer` denoises for a segment."""
    spec, before = spec.asked(vars(request)), continues(request, segment)
    given = spec.overlap if before else int(segment.index == 0 and request.image is not None)
    frames = segment.chunks * spec.chunk + (given // spec.chunk * spec.chunk if before else 0)
    shape = frames, request.height // spec.space_stride, request.width // spec.space_stride
    return Window(request.model, settings_of(request, spec), shape, given)


@dataclass(frozen=True)
class Work:
    """forwards: of a chunk through the transformer's blocks, guidance branches counted.

    kv_bytes: of the largest window, all guidance branches, before ranks share the heads.
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
class Price:
    """Of one window on a gang of `ranks` = heads x history. width, height: of its frames.

    most, least: of all ranks together, where every step that may be reused is computed, and where it is reused;
    rank_most, rank_least: of the busiest rank, alike. memory: that a rank needs. steps: that chunks take, one of one
    chunk with all guidance branches. forward_bytes: that a rank sends in a forward of one chunk for one branch.
    told: how steps are taken (`SamplingPlan`).
    """

    model: str
    width: int
    height: int
    ranks: int
    heads: int
    steps: int
    most: Work
    least: Work
    rank_most: RankWork
    rank_least: RankWork
    forward_bytes: int
    memory: Memory
    told: str = ""

    def rank(self, reused: float) -> RankWork:
        """Of the busiest rank; reused: the share of the work that reuse may save which it does save, 0..1."""
        return self.rank_most.toward(self.rank_least, reused)


@dataclass(frozen=True)
class CostModel:
    """Prices windows, each once. specs, configs: by model name; sharded: each rank holds a part of the weights.
    precision: in what they are held.
    """

    specs: Mapping[str, ModelSpec]
    configs: Mapping[str, Config]
    sharded: bool = False
    precision: Precision = GPU
    _prices: dict[tuple[Window, Policy, int], Price] = field(default_factory=dict, repr=False, compare=False)
    _dry_runs: dict[tuple[Window, Policy], WindowWork] = field(default_factory=dict, repr=False, compare=False)

    def price(self, window: Window, policy: Policy, ranks: int = 1) -> Price:
        """Which steps are reused depends on weights, so a price has two ends: see `Price`."""
        key = window, at_least(policy), ranks  # two policies that differ in thresholds alone have one price
        if key not in self._prices:
            self._prices[key] = self._count(*key)
        return self._prices[key]

    def _count(self, window: Window, policy: Policy, ranks: int) -> Price:
        spec, config = self.specs[window.model], self.configs[window.model]
        width, height = window.shape[2] * spec.space_stride, window.shape[1] * spec.space_stride
        asked, item = window.settings, self.precision.element
        spec = replace(spec, width=width, height=height, chunk=asked.chunk, fps=asked.fps)
        most, least = (self._dry_run(window, bound(policy)) for bound in (at_most, at_least))
        shape = shape_of(config, most.tokens, item)
        at_once = window.shape[0] // spec.chunk if policy.attention == "full" else None
        stored = kv_bytes(config, most, ranks, item)
        residuals = residual_bytes(config, policy, most, ranks, item, spec.channels)
        residuals += query_bytes(config, policy, most, ranks, item)
        return Price(
            model=window.model,
            width=spec.width,
            height=spec.height,
            ranks=ranks,
            heads=head_groups(ranks, config.kv_heads),
            steps=most.steps,
            most=work(config, most, item),
            least=work(config, least, item),
            rank_most=rank_work(config, most, ranks, item, self.sharded),
            rank_least=rank_work(config, least, ranks, item, self.sharded),
            forward_bytes=max(sent_bytes(shape, ranks, rank) for rank in range(ranks)),
            memory=rank_memory(spec, config, ranks, stored, residuals, self.sharded, self.precision, at_once),
            told=most.told,
        )

    def _dry_run(self, window: Window, policy: Policy) -> WindowWork:
        if (window, policy) not in self._dry_runs:
            patch = self.configs[window.model].patch
            self._dry_runs[window, policy] = dry_run(window.settings, window.shape, patch, policy, window.given)
        return self._dry_runs[window, policy]


def cost_model(specs: Mapping[str, ModelSpec], sharded: bool = False, precision: Precision = GPU) -> CostModel:
    """specs: model name -> spec. InputError where a model's transformer config can't be read."""
    configs = {name: config_of(spec) for name, spec in specs.items()}
    return CostModel(specs, configs, sharded, precision)


def work(config: Config, done: WindowWork, item: int) -> Work:
    """Of one window under one policy; item: bytes of a number."""
    return Work(done.forwards, flops(config, done), kv_bytes(config, done, 1, item))
