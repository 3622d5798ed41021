"""The task of both diffusion models: scenes in words and noise, velocities out."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import torch
from torch import nn

from flowcache.bench.shapes import vocabulary
from flowcache.families.codecs import PatchCodec
from training.families import Family
from training.muon import Muon
from training.plan import Plan, Stage
from training.scenes import Mix, swapped
from training.task import Loss, generator
from training.text import build_tokenizer

ROWS = 32  # of each probe
PROBES = (("image", "kind", 0.8), ("1", "kind", 0.9), ("1", "motion", 0.9))  # length, changed word, noise level


class Diffusion:
    """A `Task`."""

    def __init__(self, family: Family, plan: Plan, codec: PatchCodec):
        self.family, self.plan, self.codec = family, plan, codec
        self.tokenizer = build_tokenizer(vocabulary())  # of all words, so that a later run may know more of them
        self.model = family.build(len(self.tokenizer))
        self.lengths = {name: length.frames for name, length in family.lengths.items()}

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return build_optimizers(self.model, self.family)

    def loss(self, length: str, rows: list[Random], stage: Stage, room: float) -> Loss:
        mix, shares = Mix(self.plan.world, stage.weights, room), self.family.shares(**stage.shares)
        draw = partial(self.family.draw, self.family.lengths[length], mix, shares, self.codec)
        return self.family.loss(self.model, self.tokenizer, self.family.together(list(map(draw, rows))))

    @torch.no_grad()
    def probe(self, model: nn.Module) -> dict[str, Any]:
        """How much the loss rises with a wrong word at a noise level, as difference: long before samples look right."""
        found: dict[str, Any] = {}
        for length, word, level in PROBES:
            batches = [self.probed(length, row, level) for row in range(ROWS)]
            losses = {}
            for chosen in ("right", word):
                rows = [with_caption(batch, captions[chosen]) for batch, captions in batches]
                total, count = self.family.loss(model, self.tokenizer, self.family.together(rows))
                losses[chosen] = float(total / count)
            found[f"{word}+ {length} {level}"] = round(losses[word] - losses["right"], 4)
            found[f"loss {length} {level}"] = round(losses["right"], 4)
        return found

    def probed(self, length: str, row: int, level: float) -> tuple[Any, dict[str, str]]:
        """A row whose frames all have the noise level, and its captions."""
        rng = Random(f"probe/{length}/{row}")
        scene = Mix(self.plan.world).scene(rng)
        batch = self.family.noised(self.family.lengths[length], scene, level, self.codec, generator(rng))
        return batch, swapped(scene, self.plan.world, rng)


def with_caption(batch: Any, words: str) -> Any:
    return replace(batch, captions=[words] * len(batch.captions))


def build_optimizers(model: nn.Module, family: Family) -> list[torch.optim.Optimizer]:
    """Muon on the matrices of the transformer's blocks, AdamW on all the rest, slowly on what conditions them.

    At the full rate the text encoder saturates within a thousand steps (T5's attention has no 1 / sqrt(d)): words
    lose their neighbours, and a caption's two colours are mixed up for good. The time embedding saturates too: all
    low noise levels become one.
    """
    groups: dict[str, list[nn.Parameter]] = {"matrices": [], "conditioning": [], "rest": []}
    for name, parameter in model.named_parameters():
        block = name.startswith(family.matrices) and parameter.ndim == 2
        slow = name.startswith(family.slow)
        groups["conditioning" if slow else "matrices" if block else "rest"].append(parameter)
    rest = [{"params": groups["rest"], "share": 0.5}, {"params": groups["conditioning"], "share": 0.2}]
    optimizers = [
        Muon(groups["matrices"]),
        torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for group in groups_of(optimizers):
        group.setdefault("share", 1.0)  # of the learning rate
    return optimizers


def groups_of(optimizers: Iterable[torch.optim.Optimizer]) -> Iterable[dict[str, Any]]:
    return (group for optimizer in optimizers for group in optimizer.param_groups)
