"""What a run trains, stage by stage: one YAML file, from which, with the step, everything follows."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from flowcache.bench.shapes import KINDS, MOTIONS, World

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]


def one_of(names: Collection[str]) -> AfterValidator:
    def known(name: str) -> str:
        if name not in names:
            raise ValueError(f"{name}; accepted: {', '.join(names)}")
        return name

    return AfterValidator(known)


Kind = Annotated[str, one_of(KINDS)]
Motion = Annotated[str, one_of(MOTIONS)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Stage(Strict):
    """until: the step at which it ends. batch: rows of each length in a step, all processes together.

    weights: how often scenes with a word (kind or motion) are drawn, against 1 of the others. emphasis: weight of a
    length's tokens in the loss. shares: the family's own, over its defaults.
    """

    until: Count
    batch: dict[str, Count] = Field(min_length=1)
    weights: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    emphasis: dict[str, Annotated[float, Field(gt=0)]] = {}
    shares: dict[str, Share] = {}


class Plan(Strict):
    """rates: the learning rate at steps, linear between them. spread: steps over which shapes leave the middle.

    probe: steps between two looks at what is learned. keep: steps whose averages stay as files, for comparison.
    kinds, motions: what the model is shown, and its vocabulary later.
    """

    task: Literal["skyreels", "magi", "refiner"]
    stages: tuple[Stage, ...] = Field(min_length=1)
    rates: tuple[tuple[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=0)]], ...] = Field(min_length=1)
    kinds: tuple[Kind, ...] = Field(KINDS, min_length=2)
    motions: tuple[Motion, ...] = Field(tuple(MOTIONS), min_length=2)
    causal: bool = True  # of the refiner's codec; the two models know theirs
    warmup: Count = 100
    spread: Annotated[int, Field(ge=0)] = 0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # auto: bfloat16 where the CPU has its products
    seed: int = 0
    probe: Count = 100
    keep: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def consistent(self) -> "Plan":
        ends = [stage.until for stage in self.stages]
        steps = [step for step, _ in self.rates]
        if ends != sorted(set(ends)) or steps != sorted(set(steps)):
            raise ValueError("stages and rates must be in the order of their steps, each step once")
        for stage in self.stages:
            for name, known in (("weights", {*self.kinds, *self.motions}), ("emphasis", {*stage.batch})):
                if unknown := sorted({*getattr(stage, name)} - known):
                    raise ValueError(f"{name} {', '.join(unknown)}; accepted: {', '.join(sorted(known))}")
        return self

    @property
    def steps(self) -> int:
        return self.stages[-1].until

    @property
    def world(self) -> World:
        return World(self.kinds, self.motions)

    def stage(self, step: int) -> Stage:
        """The one that trains the step after so many."""
        return next(stage for stage in self.stages if step < stage.until)

    def rate(self, step: int, begun: int = 0) -> float:
        """Learning rate; begun: the step that the run began at, from where it warms up."""
        at, rates = zip(*self.rates, strict=True)
        return float(np.interp(step, at, rates)) * min(1.0, (step - begun + 1) / self.warmup)

    def room(self, step: int) -> float:
        """How far from the middle shapes may start, of the whole picture."""
        return min(1.0, 0.2 + 0.8 * step / self.spread) if self.spread else 1.0


def read_plan(path: Path) -> Plan:
    """ValueError names the file, the field and what is accepted."""
    try:
        return Plan.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as fault:
        lines = (f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in fault.errors())
        raise ValueError("\n".join(lines)) from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as fault:
        raise ValueError(f"{path}: {fault}") from None


def split(batch: dict[str, int], cost: dict[str, int], processes: int) -> list[dict[str, list[int]]]:
    """Which rows of each length each process trains: the costliest first, always to whoever has least to do."""
    parts: list[dict[str, list[int]]] = [{} for _ in range(processes)]
    load = [0] * processes
    for length in sorted(batch, key=lambda name: (-cost[name], name)):
        for row in range(batch[length]):
            least = load.index(min(load))
            parts[least].setdefault(length, []).append(row)
            load[least] += cost[length]
    return parts
