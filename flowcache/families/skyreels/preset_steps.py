"""How many steps of a chunk each preset computes: known without rendering, since the signal sees time only."""

import torch

from flowcache.cache.reuse import ReuseState, decide
from flowcache.families.policies import by_preset
from flowcache.models.base import Grid, VideoModel
from flowcache.records import ModelSpec
from flowcache.sampling.solver import sigmas, timesteps


@torch.inference_mode()
def computed_steps(model: VideoModel, spec: ModelSpec) -> dict[str, int]:
    """By preset, of the model's default number of steps. Needs `condition` and `signal` of the model alone."""
    times = timesteps(sigmas(spec.steps, spec.shift))
    grid = Grid(1, 1, 1)
    conditionings = [model.condition(torch.tensor([[float(time)]]), grid, spec.fps) for time in times]
    signals = [model.signal(conditioning, None, grid) for conditioning in conditionings]
    counts = {}
    for preset in spec.reuse:
        reuse = by_preset({"name": "paper", "preset": preset}, spec)
        state, counts[preset] = ReuseState(), 0
        for step, signal in enumerate(signals):
            decision, state = decide(reuse, state, signal, step, spec.steps)
            counts[preset] += decision.compute
    return counts
