"""The policies that SkyReels-V2 knows. No torch."""

from flowcache.families.policy_settings import HISTORY, REUSE, PolicyKeys

# The K/V then equal the unaccelerated model's; the published code lacks it.
REFRESHED = {"kv_update": "refresh"}
POLICIES = {
    "off": PolicyKeys(),
    "dense": PolicyKeys(REUSE, {"attention": "full", "joint": True}, reuses=False),
    "paper": PolicyKeys((*REUSE, *HISTORY), {"kv_update": "stale"}),
    "teacache": PolicyKeys((*REUSE, *HISTORY), REFRESHED | {"joint": True}),
    "flowcache": PolicyKeys(("reuse", *REUSE, *HISTORY), REFRESHED),
}
