"""What nothing sees is not forwarded."""

from dataclasses import replace

from flowcache.cache.policy import Policy
from flowcache.sampling.plan import ChunkForward, SamplingPlan, SamplingStep


def without_idle(plan: SamplingPlan, policy: Policy) -> SamplingPlan:
    """The same result from fewer forwards: none whose velocity has no weight and whose K/V are never read.

    From the last one back, as compilers drop dead code. Budgets of K/V are cut by whoever is forwarded, so there only
    forwards that leave no K/V are dropped; where all chunks are forwarded together, none.
    """
    if policy.attention == "full" or policy.whole:
        return plan
    read, rows = set[tuple[int, int]](), list[SamplingStep]()  # (K/V branch, chunk) that a later forward reads
    for row in reversed(plan.rows):
        kept = list[ChunkForward]()
        for forward in reversed(row.forwards):
            counts = forward.step >= 0 and (forward.step, forward.branch) not in plan.weightless
            branch, chunk = forward.kv_branch, forward.chunk
            if branch is None:
                kept += [forward] if counts else []
            elif counts or policy.clean is not None or (branch, chunk) in read:
                kept.append(forward)
                if forward.step < 0 or not policy.reuse:  # a step that is reused writes nothing
                    read.discard((branch, chunk))
                read |= {(branch, before) for before in range(forward.first, chunk)}
        rows.append(replace(row, forwards=tuple(reversed(kept))))
    return replace(plan, rows=tuple(reversed(rows)))
