"""The policies that SkyReels-V2 knows. No torch until one is resolved."""

from dataclasses import replace
from typing import TYPE_CHECKING

from flowcache.families.policy_settings import HISTORY, REUSE, Given, PolicyDeclaration, shared
from flowcache.records import ModelSpec

if TYPE_CHECKING:
    from flowcache.cache.fixed_steps import FixedSteps
    from flowcache.cache.reuse import Reuse
    from flowcache.cache.step_cache import CacheOf


def _per_chunk(given: Given, spec: ModelSpec) -> "tuple[Reuse, CacheOf]":
    from flowcache.cache.step_cache import CacheOf, RepeatResidual
    from flowcache.families.policies import by_preset

    return by_preset(given, spec), CacheOf(RepeatResidual)


def _joint(given: Given, spec: ModelSpec) -> "tuple[Reuse, CacheOf]":
    from flowcache.cache.reuse import JointReuse
    from flowcache.cache.step_cache import CacheOf, RepeatResidual
    from flowcache.families.policies import by_preset

    return by_preset(given, spec, JointReuse), CacheOf(RepeatResidual)


def _together(given: Given, spec: ModelSpec) -> "tuple[Reuse, CacheOf]":
    """The official TeaCache: it looks at the time embedding where the preset's polynomial was fitted to that."""
    from flowcache.cache.reuse import CountedReuse
    from flowcache.cache.step_cache import CacheOf, RepeatResidual
    from flowcache.families.policies import by_preset

    rule = by_preset(given, spec, CountedReuse)
    signal = spec.reuse[given.get("preset", "slow")].get("signal", "blocks")
    return replace(rule, signal=signal), CacheOf(RepeatResidual)


def _budget(given: Given, spec: ModelSpec) -> "FixedSteps":
    from flowcache.families.policies import budgeted

    return budgeted(given, spec)


# The K/V then equal the unaccelerated model's; the published code lacks it.
REFRESHED = {"kv_update": "refresh"}
POLICIES = (
    PolicyDeclaration("off"),
    PolicyDeclaration("dense", shared(*REUSE), {"attention": "full"}, _together, reuses=False),
    PolicyDeclaration("paper", shared(*REUSE, *HISTORY), {"kv_update": "stale"}, _per_chunk),
    PolicyDeclaration("teacache", shared(*REUSE, *HISTORY), REFRESHED, _joint),
    PolicyDeclaration(
        "flowcache",
        shared("budget", "quality_floor", "target", "reuse", *REUSE, *HISTORY),
        REFRESHED,
        _per_chunk,
        steps=_budget,
    ),
    PolicyDeclaration("paper-mended", shared("reuse", *REUSE, *HISTORY), REFRESHED, _per_chunk),
)
