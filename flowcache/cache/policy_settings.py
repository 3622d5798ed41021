"""What a policy may be told, as plain data: checked where rows are read and again where it is resolved. No torch."""

from typing import Any

REUSE = ("preset", "threshold", "ret_steps")
HISTORY = ("refresh", "renoise", "kv")
MENDS = ("velocity", "last_step", "near_clean")  # of what FlowCache does to MAGI-1
KEYS = ("name", *REUSE, *HISTORY, *MENDS, "reuse")
POLICIES = {  # name -> the settings that go with it
    "off": (),
    "dense": (),
    "paper": (*REUSE, *HISTORY),
    "teacache": (*REUSE, *HISTORY),
    "flowcache": ("reuse", *REUSE, *HISTORY),
}
FAMILIES = {  # the same by family
    "skyreels": POLICIES,
    "magi": {
        "off": (),
        "paper": (*REUSE, "refresh", "kv", "near_clean"),
        "flowcache": ("reuse", *REUSE, "refresh", "kv", *MENDS),
    },
}
# kv.keep -> the settings that it needs, and those that it may have.
KEEP = {
    "all": ((), ()),
    "recent": (("chunks",), ()),
    "sink": (("first", "chunks"), ()),
    "compressed": (("chunks",), ("by", "mix", "queries", "weighting", "power")),
}
UNITS = ("token", "frame", "chunk")
WEIGHTINGS = ("even", "hard_code", "exponential", "polynomial", "upper_convex_polynomial", "gaussian")

Fault = tuple[tuple[str, ...], str]  # (where, message), such as (("kv", "chunks"), "is missing; ...")


def misfits(policy: dict[str, Any], family: str) -> list[Fault]:
    """Settings that do not go together, or that are missing; types and ranges are checked elsewhere."""
    name, policies = policy.get("name", "off"), FAMILIES[family]
    if name not in policies:
        return [(("name",), f"got {name!r}; accepted for models of family {family}: {', '.join(policies)}")]
    known = policies[name]
    accepted = f"accepted: {', '.join(known) or 'nothing but name'}"
    faults: list[Fault] = [
        ((key,), f"does not go with name {name!r}; {accepted}") for key in sorted(policy.keys() - {"name", *known})
    ]
    if faults:
        return faults
    if policy.get("reuse") is False:
        faults += [((key,), "does not go with reuse false; accepted: none") for key in REUSE if key in policy]
    kv = policy.get("kv", {})
    if kv:
        faults += [(("kv", *where), message) for where, message in _kv_misfits(kv)]
    if policy.get("renoise") and kv.get("keep", "all") != "all":
        why = "a prefix that is forwarded with fresh noise at every row can't be cut down"
        faults.append((("renoise",), f"does not go with kv.keep {kv['keep']!r}: {why}; accepted: false"))
    return faults


def _kv_misfits(kv: dict[str, Any]) -> list[Fault]:
    keep = kv.get("keep")
    if keep not in KEEP:
        return [(("keep",), f"got {keep!r}; accepted: {', '.join(map(repr, KEEP))}")]
    needed, allowed = KEEP[keep]
    missing = [((key,), f"is missing; keep {keep!r} needs {' and '.join(needed)}") for key in needed if key not in kv]
    accepted = f"accepted: {', '.join((*needed, *allowed)) or 'nothing but keep'}"
    unknown = sorted(kv.keys() - {"keep", *needed, *allowed})
    if "weighting" in kv and kv.get("by", "token") != "token":
        missing.append((("weighting",), f"does not go with by {kv['by']!r}: only single tokens are weighted by age"))
    return missing + [((key,), f"does not go with keep {keep!r}; {accepted}") for key in unknown]
