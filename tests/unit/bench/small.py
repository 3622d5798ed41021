"""Bundled models with small windows, and what is asked of them."""

from dataclasses import replace

import torch

from flowcache.bench.names import entries
from flowcache.bench.prompts import draw
from flowcache.bench.run import Asked
from flowcache.families.registry import load_model

POLICIES = "flowcache:0.5,magcache,taylorseer:2"


def small(name: str, chunks: int):
    """A bundled model with windows of so many chunks and a few steps."""
    torch.set_num_threads(1)
    made = load_model(name)
    spec, frames = made.spec, made.spec.video_frames(chunks * made.spec.chunk)
    changed = {"steps": 4, "window": chunks * spec.chunk, "frames": frames, "ar_step": 2, "calibrations": ()}
    return replace(made, spec=replace(spec, **changed))


def asked(model, n=1, policies=POLICIES, **changed) -> Asked:
    named, own = entries(policies)
    return Asked(**{"prompts": draw(model.spec, n, 4), "seed": 4, "entries": named, "own": own, **changed})


class Killed(Exception):
    pass


def killed_after(rows: int):
    def tell(done, total, label):
        if done >= rows:
            raise Killed

    return tell


def quiet(done, total, label):
    pass
