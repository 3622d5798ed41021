"""The plan that a window follows: the family's, of which only what counts is run."""

from dataclasses import replace

from flowcache.cache.policy import Policy
from flowcache.sampling.plan import ChunkForward, SamplingPlan, SamplingStep, Settings
from flowcache.sampling.thinned import thinned


def plan_for(settings: Settings, frames: int, policy: Policy, given: int = 0) -> SamplingPlan:
    """`Settings.plan`, with a fixed schedule's steps alone (`thinned`), without what nothing sees (`without_idle`).

    ValueError also for a rule, a step cache or a schedule that this plan or its solver does not go with.
    """
    plan, cache = settings.plan(frames, policy, given), policy.step_cache()
    if cache.jumps and plan.solver.start is not None:
        solver = type(plan.solver).__name__
        why = f"{type(cache).__name__} passes by the solver, and {solver} goes on from what it did in the steps before"
        raise ValueError(f"policy {policy.name!r}: {why}; accepted: a step cache that gives it a velocity")
    if policy.reuse and policy.reuse.joint and not plan.timesteps:
        why = f"{type(policy.reuse).__name__} decides by the timesteps of all chunks, which this sampler does not tell"
        raise ValueError(f"policy {policy.name!r}: {why}; accepted: a rule that decides for each chunk")
    exact = without_idle(plan, policy)
    if policy.steps is None:
        return exact
    plan = without_idle(thinned(plan, policy.steps), policy)
    run = {forward for row in plan.rows for forward in row.forwards}
    every = (forward for row in exact.rows for forward in row.forwards if forward.step >= 0)
    return replace(plan, spared=tuple(forward for forward in every if forward not in run))


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
