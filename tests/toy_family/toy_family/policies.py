"""The toy's policies, one of which no other family has. No torch until one is resolved."""

from typing import TYPE_CHECKING

from flowcache.families.policy_settings import REUSE, Given, PolicyDeclaration, shared
from flowcache.families.setting import Number
from flowcache.records import ModelSpec

if TYPE_CHECKING:
    from flowcache.cache.reuse import Reuse
    from flowcache.cache.step_cache import CacheOf


def repeat(given: Given, spec: ModelSpec) -> "tuple[Reuse, CacheOf]":
    from flowcache.cache.step_cache import CacheOf, RepeatVelocity
    from flowcache.families.policies import by_preset

    return by_preset(given, spec), CacheOf(RepeatVelocity)


def forecast(given: Given, spec: ModelSpec) -> "tuple[Reuse, CacheOf]":
    from flowcache.cache.step_cache import CacheOf
    from flowcache.families.policies import by_preset

    from .forecast import ForecastVelocity

    return by_preset(given, spec), CacheOf(ForecastVelocity, (given["order"],))


KEPT = {"kv_update": "stale"}
ORDER = Number(1, 3, whole=True, default=1)
POLICIES = (
    PolicyDeclaration("off", fields=KEPT),
    PolicyDeclaration("flowcache", shared("reuse", *REUSE), KEPT, repeat),
    PolicyDeclaration("forecast", {"order": ORDER, **shared(*REUSE)}, KEPT, forecast),
)
