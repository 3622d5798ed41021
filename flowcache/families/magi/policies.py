"""The policies that MAGI-1 knows: what FlowCache does on it, and what of that is mended. Torch only to resolve one.

All is mended in `flowcache` and `paper-mended`, nothing in `paper`. The K/V of clean chunks are kept even with `off`.
"""

from typing import TYPE_CHECKING

from flowcache.families.policy_settings import REUSE, Given, PolicyDeclaration, shared
from flowcache.records import ModelSpec

if TYPE_CHECKING:
    from flowcache.cache.fixed_steps import FixedSteps
    from flowcache.cache.reuse import Reuse
    from flowcache.cache.step_cache import CacheOf


def _published(given: Given, spec: ModelSpec) -> "tuple[Reuse, CacheOf]":
    from flowcache.cache.step_cache import CacheOf, RepeatIncrement
    from flowcache.families.policies import by_preset

    return by_preset(given, spec, last_step=False), CacheOf(RepeatIncrement)


def _mended(given: Given, spec: ModelSpec) -> "tuple[Reuse, CacheOf]":
    from flowcache.cache.step_cache import CacheOf, RepeatIncrement, RepeatVelocity
    from flowcache.families.policies import by_preset

    cache = RepeatVelocity if given.get("velocity", True) else RepeatIncrement
    return by_preset(given, spec, last_step=given.get("last_step", True)), CacheOf(cache)


def _budget(given: Given, spec: ModelSpec) -> "FixedSteps":
    from flowcache.families.policies import budgeted

    return budgeted(given, spec)


REFRESHED = {"kv_update": "refresh"}
PUBLISHED = {"kv_update": "stale", "near_clean_guidance": False, "cut": "after"}
MENDS = ("velocity", "last_step", "near_clean")
POLICIES = (
    PolicyDeclaration("off", fields=REFRESHED),
    PolicyDeclaration("paper", shared(*REUSE, "refresh", "kv", "near_clean"), PUBLISHED, _published),
    PolicyDeclaration(
        "flowcache",
        shared("budget", "quality_floor", "target", "reuse", *REUSE, "refresh", "kv", *MENDS),
        REFRESHED,
        _mended,
        steps=_budget,
    ),
    PolicyDeclaration("paper-mended", shared("reuse", *REUSE, "refresh", "kv", *MENDS), REFRESHED, _mended),
)
