"""FlowCache on MAGI-1 as published, with each mend of ours and with all, at as many chunk forwards as fewer steps take.

For `benchmarks.policies`: thresholds are fitted to that number on other prompts, by what the policy saw in
unaccelerated runs. "polynomial": the change of the tokens is first mapped to that of the blocks' residual, as
`training.calibrate` measured it; else it is summed up as it is, as FlowCache does.
"""

from typing import Any

import numpy as np

from flowcache.cache.reuse import Reuse
from flowcache.families.settings import settings_of
from flowcache.models.base import LoadedModel
from training.calibrate import PUBLISHED, computed_steps, record, usual

UNMENDED = {"name": "flowcache", "velocity": False, "last_step": False, "refresh": False}  # what `paper` does
WARM_UP = 5  # steps at a chunk's start that are always computed; FlowCache's for MAGI-1
SHORTER = {20: True, 12: False}  # steps to compare with -> whether each mend is shown on its own, too
Setting = tuple[dict[str, Any], int]  # policy, steps


def settings(model: LoadedModel, videos: int = 3, seed: int = 977) -> dict[str, Setting]:
    """By name, each with a threshold of its own."""
    seen = record(model, videos, seed).signals
    found: dict[str, Setting] = {}
    for steps, each in SHORTER.items():
        found[f"{steps} steps"] = {"name": "off"}, steps
        single = {f"{mend} alone": UNMENDED | {mend: True} for mend in UNMENDED if mend != "name"}
        policies = {"paper": {"name": "paper"}, **(single if each else {}), "all mends": {"name": "flowcache"}}
        policies = {name: policy | {"preset": f"slow{PUBLISHED}"} for name, policy in policies.items()}
        policies["all mends, polynomial"] = policies["all mends"] | {"preset": "slow"}
        for name, policy in policies.items():
            found[f"{name}, as {steps} steps"] = fitted(model, policy, steps, seen), model.spec.steps
    return found


def fitted(model: LoadedModel, policy: dict[str, Any], steps: int, seen: list[list[Any]]) -> dict[str, Any]:
    """The policy with the threshold at which it forwards as many chunks as `steps` computed steps do."""
    mended = policy["name"] == "flowcache"
    last = policy.get("last_step", mended)
    chunks = model.spec.frames // model.spec.chunk_frames
    # a finished chunk is forwarded once more in two passes of three, but for the last one
    saved = 0 if policy.get("refresh", mended) else 2 * (chunks - 1)
    passes = settings_of(usual(model.spec), model.spec).pipeline.passes
    wanted = steps + saved / (passes * chunks)
    thresholds = np.geomspace(1e-3, 10, 400)
    coefficients = tuple(model.spec.reuse[policy["preset"]]["coefficients"])
    tried = [Reuse(float(threshold), WARM_UP, coefficients) for threshold in thresholds]
    counts = np.mean([[len(computed_steps(reuse, one, last)) for reuse in tried] for one in seen], axis=0)
    nearest = thresholds[np.abs(counts - wanted) == np.abs(counts - wanted).min()]
    threshold = float(f"{np.sqrt(nearest[0] * nearest[-1]):.4g}")
    return policy | {"threshold": threshold, "ret_steps": WARM_UP}
