"""The published models at their default sizes, priced from their configs: there are no weights."""

from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatIncrement
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.inputs.segments import plan
from flowcache.planner.price import CostModel, Price, Window, window
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.sampling.dry_run import WindowWork, at_most, dry_run

MODELS = {
    "1.3B": SkyReelsConfig(1536, 8960, 12, 30),
    "14B": SkyReelsConfig(5120, 13824, 40, 40),
    "4.5B": MagiConfig(3072, 12288, 24, 8, 128, 34),
}
SKYREELS = Policy("paper", Reuse(0.1, 5, (1.0,)), "stale", clean=2, compression=Compression())
MAGI = Policy("paper", Reuse(0.01, 5, (1.0,)), "stale", near_clean_guidance=False, cache=CacheOf(RepeatIncrement))
POLICIES = {"1.3B": SKYREELS, "14B": SKYREELS, "4.5B": MAGI}


def spec_of(name: str) -> ModelSpec:
    if name == "4.5B":
        return ModelSpec(
            name, "magi", "path", "digest", chunk=6, window=60, overlap=24, channels=16, causal=False, width=720,
            height=720, pipeline=Pipeline(passes=1, distilled=True),
        )  # fmt: skip
    return ModelSpec(
        name, "skyreels", "path", "digest", chunk=5, window=25, overlap=5, channels=16, width=960, height=544
    )


def window_of(name: str) -> Window:
    """Of one segment as long as the model's window."""
    spec, frames = SPECS[name], 240 if name == "4.5B" else 97
    shots, off = (Shot("a", frames),), {"name": "off"}
    request = RenderRequest("v", shots, spec.width, spec.height, 24, 1, 6.0, 48, name, off)
    return window(request, plan(request, spec)[0], spec)


SPECS = {name: spec_of(name) for name in MODELS}
WINDOWS = {name: window_of(name) for name in MODELS}
COSTS = {sharded: CostModel(SPECS, MODELS, sharded) for sharded in (False, True)}


def price(name: str, ranks: int, policy: Policy | None = None, sharded: bool = False) -> Price:
    return COSTS[sharded].price(WINDOWS[name], policy or POLICIES[name], ranks)


def dry_run_of(name: str) -> WindowWork:
    """Where nothing is reused."""
    seen = WINDOWS[name]
    return dry_run(seen.settings, seen.shape, (1, 2, 2), at_most(POLICIES[name]), seen.given)


DONE = {name: dry_run_of(name) for name in MODELS}
