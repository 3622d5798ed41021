"""The policies that MAGI-1 knows: what FlowCache does on it, and what of that is mended. No torch.

All is mended in `flowcache`, nothing in `paper`. The K/V of clean chunks are kept even with `off`.
"""

from flowcache.families.policy_settings import REUSE, PolicyKeys

MENDS = ("velocity", "last_step", "near_clean")
PUBLISHED = {
    "kv_update": "stale",
    "repeats": "increment",
    "last_step": False,
    "near_clean_guidance": False,
    "cut": "after",
}
POLICIES = {
    "off": PolicyKeys(fields={"kv_update": "refresh"}),
    "paper": PolicyKeys((*REUSE, "refresh", "kv", "near_clean"), PUBLISHED),
    "flowcache": PolicyKeys(
        ("reuse", *REUSE, "refresh", "kv", *MENDS), {"kv_update": "refresh", "repeats": "velocity"}
    ),
}
