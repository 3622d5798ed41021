"""What is spared compared to running the whole window at every step: a policy as plain data."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from flowcache.cache.kv_select import Compression, Sink, latest
from flowcache.cache.policy_settings import FAMILIES, KEYS, POLICIES, UNITS, WEIGHTINGS, misfits
from flowcache.cache.reuse import Reuse
from flowcache.models.base import Select
from flowcache.records import ModelSpec

REUSE_KEYS = ("threshold", "ret_steps", "coefficients")


@dataclass(frozen=True)
class Policy:
    """What is spared compared to running the whole window at every step.

    attention: "causal" by chunks, or "full": all chunks of the window are forwarded together at every row, those
      that have not started too, and attend to one another (the official default, which spares nothing).
    kv_update: how the chunks before an updating one are seen.
      "recompute": forwarded anew at every row, finished ones at timestep 0 (the unaccelerated model);
      "stale": by the K/V of their last noisy step (as published);
      "refresh": forwarded once more at timestep 0 when they are finished.
    renoise: the prefix is forwarded with fresh noise at every row, not only at the first; "recompute" implies it.
    clean: finished chunks are seen with so many chunks' worth of tokens; None: with all.
    compression: how these tokens are chosen; None: the latest.
    joint: one decision a row for the whole window, from the timesteps of all its frames (TeaCache), instead of
    one for each chunk.
    repeats: what a reused step takes: the "residual" of all layers (SkyReels-V2), each branch its own; the last
      computed "velocity", which the solver integrates over the step's own length; or the latents' last "increment",
      whatever the step's length (as published for MAGI-1).
    last_step: a chunk's own last step is always computed, else only that of the whole plan.
    near_clean_guidance: what distilled MAGI-1 takes from a copy of its cleanest chunk that sees only itself.
    cut: where clean tokens are cut down to the budget: "before" a chunk after them is forwarded, with its queries;
      or "after" the row before, with the queries of its last forward (as published for MAGI-1).
    """

    name: str
    reuse: Reuse | None = None
    kv_update: Literal["recompute", "stale", "refresh"] = "recompute"
    renoise: bool = False
    clean: int | None = None
    compression: Compression | Sink | None = None
    joint: bool = False
    attention: Literal["causal", "full"] = "causal"
    repeats: Literal["residual", "velocity", "increment"] = "residual"
    last_step: bool = True
    near_clean_guidance: bool = True
    cut: Literal["before", "after"] = "before"

    def __post_init__(self):
        if self.attention == "full" and (self.reuse or self.kv_update != "recompute"):
            raise ValueError("full attention runs the whole window anew at every row: nothing to keep or to reuse")
        if self.clean is not None and (self.kv_update == "recompute" or self.renoise):
            raise ValueError("a chunk that is forwarded again and again can't be cut down to a budget of clean tokens")

    def select(self, frame: int, chunk: int) -> Select:
        """How clean tokens are chosen (`models.base.Select`), where a frame and a chunk have so many tokens."""
        if isinstance(self.compression, Compression):
            return self.compression.grouped(frame, chunk).select
        return self.compression.select if self.compression else latest


def resolve_policy(policy: dict[str, Any], spec: ModelSpec) -> Policy:
    """From a row's policy (docs/manifest.md); presets are the model's (`ModelSpec.reuse`).

    ValueError names what would be accepted.
    """
    name = policy.get("name", "off")
    if name not in POLICIES:
        raise ValueError(f"unknown policy {name!r}; accepted: {', '.join(FAMILIES[spec.family])}")
    if unknown := sorted(set(policy) - set(KEYS)):
        raise ValueError(f"unknown policy settings {', '.join(unknown)}; accepted: {', '.join(KEYS)}")
    if faults := misfits(policy, spec.family):
        raise ValueError("; ".join(f"policy {'.'.join(where)} {message}" for where, message in faults))
    if name == "off":  # MAGI-1 keeps the K/V of clean chunks even so
        return Policy("off", kv_update="refresh" if spec.family == "magi" else "recompute")
    if name == "dense":
        return Policy("dense", attention="full")
    reuse = _reuse(policy, spec) if policy.get("reuse", True) else None
    # The history then equals the unaccelerated model's; the published code lacks it.
    refresh = policy.get("refresh", name != "paper")
    clean, compression = _kept(policy.get("kv", {"keep": "all"}))
    kv_update = "refresh" if refresh else "stale"
    common = Policy(name, reuse, kv_update, policy.get("renoise", False), clean, compression, joint=name == "teacache")
    return _of_magi(common, policy) if spec.family == "magi" else common


def _of_magi(common: Policy, policy: dict[str, Any]) -> Policy:
    """What FlowCache does on MAGI-1, and what of it is mended: all in `flowcache`, nothing in `paper`."""
    mended = policy["name"] == "flowcache"
    velocity, last_step, near_clean = (policy.get(key, mended) for key in ("velocity", "last_step", "near_clean"))
    return replace(
        common,
        repeats="velocity" if velocity else "increment",
        last_step=last_step,
        near_clean_guidance=near_clean,
        cut="before" if mended else "after",
    )


def _reuse(policy: dict[str, Any], spec: ModelSpec) -> Reuse:
    preset = policy.get("preset", "slow")
    if preset not in spec.reuse:
        accepted = ", ".join(spec.reuse) or "none, it comes without presets"
        raise ValueError(f"unknown preset {preset!r} of policy {policy['name']}; {spec.name} accepts: {accepted}")
    threshold, warmup_steps, coefficients = ({**spec.reuse[preset], **policy}[key] for key in REUSE_KEYS)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
        raise ValueError(f"policy threshold must be a finite number, not {threshold!r}")
    if isinstance(warmup_steps, bool) or not isinstance(warmup_steps, int) or warmup_steps < 0:
        raise ValueError(f"policy ret_steps must be a whole number of steps, 0 or more, not {warmup_steps!r}")
    return Reuse(threshold, warmup_steps, tuple(coefficients))


def _kept(kv: dict[str, Any]) -> tuple[int | None, Compression | Sink | None]:
    """Chunks' worth of clean tokens, and how they are chosen."""
    for key in ("chunks", "first"):
        if isinstance(kv.get(key, 1), bool) or not isinstance(kv.get(key, 1), int) or kv.get(key, 1) < 1:
            raise ValueError(f"policy kv.{key} must be a whole number of chunks, 1 or more, not {kv[key]!r}")
    if kv["keep"] == "all":
        return None, None
    if kv["keep"] == "recent":
        return kv["chunks"], None
    if kv["keep"] == "sink":
        return kv["first"] + kv["chunks"], Sink(kv["first"], kv["chunks"])
    mix, power = kv.get("mix", 0.07), kv.get("power", 3.0)
    named = {"by": (UNITS, "token"), "queries": (UNITS, "chunk"), "weighting": (WEIGHTINGS, "even")}
    chosen = {key: kv.get(key, default) for key, (_, default) in named.items()}
    for key, (accepted, _) in named.items():
        if chosen[key] not in accepted:
            raise ValueError(f"policy kv.{key} must be {', '.join(accepted)}, not {chosen[key]!r}")
    if isinstance(mix, bool) or not isinstance(mix, int | float) or not 0 <= mix <= 1:
        raise ValueError(f"policy kv.mix must be a number from 0 to 1, not {mix!r}")
    if isinstance(power, bool) or not isinstance(power, int | float) or not 0 < power <= 100:
        raise ValueError(f"policy kv.power must be a number above 0, at most 100, not {power!r}")
    return kv["chunks"], Compression(mix, power=power, **chosen)
