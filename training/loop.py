"""The loop: steps of a plan, by one process or several with summed gradients, resumable to the same bits."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TextIO

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.plan import Plan, split
from training.task import Task

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


@dataclass(frozen=True)
class Place:
    """This process among those that train together."""

    rank: int = 0
    processes: int = 1


class Run:
    """Everything that a resumed training needs; data and noise follow from the plan's seed and the step alone."""

    def __init__(self, task: Task, plan: Plan, folder: Path, place: Place | None = None, begun: int = 0):
        self.task, self.plan, self.folder, self.place = task, plan, folder, place or Place()
        self.model, self.average = task.model, deepcopy(task.model).requires_grad_(False)
        self.optimizers = task.optimizers()
        self.step = self.begun = begun
        self.spent = 0.0  # seconds, in all calls together
        self.seen: dict[str, int] = {}  # rows of each length

    @property
    def path(self) -> Path:
        return self.folder / CHECKPOINT

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "plan": self.plan.model_dump_json(),
            **{name: getattr(self, name) for name in ("step", "begun", "spent", "seen")},
        }

    def save(self) -> None:
        """Replaces the file in one step, so that a kill leaves the old or the new one."""
        temporary = self.path.with_suffix(".tmp")
        torch.save(self.state(), temporary)
        os.replace(temporary, self.path)

    def resume(self) -> None:
        """From the last checkpoint, if there is one."""
        if not self.path.exists():
            return
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.begun, self.spent, self.seen = (state[name] for name in ("step", "begun", "spent", "seen"))

    def advance(self, enough: bool = False) -> tuple[dict[str, float], bool]:
        """One step: the mean loss of each length, and whether any process had enough."""
        stage, place = self.plan.stage(self.step), self.place
        totals = torch.zeros(len(stage.batch) + 1, 2, dtype=torch.float64)
        totals[-1, 0] = enough
        names = sorted(stage.batch)
        for length, rows in split(stage.batch, self.task.lengths, place.processes)[place.rank].items():
            drawn = [Random(f"{self.plan.seed}/{self.step}/{length}/{row}") for row in rows]
            with self.precision():
                total, count = self.task.loss(length, drawn, stage, self.plan.room(self.step))
            (total * stage.emphasis.get(length, 1.0)).backward()
            totals[names.index(length)] = torch.stack([total.detach(), count]).double()
        totals = self.sum_up(totals)
        emphasis = torch.tensor([stage.emphasis.get(name, 1.0) for name in names], dtype=torch.float64)
        self.update(float((totals[:-1, 1] * emphasis).sum()))
        for name in names:
            self.seen[name] = self.seen.get(name, 0) + stage.batch[name]
        means = (totals[:-1, 0] / totals[:-1, 1].clamp(min=1)).tolist()
        return dict(zip(names, means, strict=True)), bool(totals[-1, 0])

    @contextmanager
    def precision(self) -> Iterator[None]:
        """That of forwards, and the attention that is faster in it: in float32 the fused one, by 1.7."""
        fast = self.plan.precision == "auto" and torch.cpu._is_avx512_bf16_supported()  # else 100 times slower
        narrow = fast or self.plan.precision == "bfloat16"
        backends = [SDPBackend.MATH] if narrow else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow), sdpa_kernel(backends):
            yield

    def learned(self) -> dict[str, Any]:
        """What the averaged model has learned."""
        with self.precision():
            return self.task.probe(self.average)

    def sum_up(self, totals: Tensor) -> Tensor:
        """The totals of all processes; the gradients become those of all, too."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:  # no row of this process touches it
                parameter.grad = torch.zeros_like(parameter)
        if self.place.processes == 1:
            return totals
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        dist.all_reduce(totals)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
        return totals

    def update(self, count: float) -> None:
        """Optimizers and average, from the gradient of a sum of so many errors."""
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad /= count
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        rate = self.plan.rate(self.step, self.begun)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            optimizer.step()
            optimizer.zero_grad()
        done = self.step - self.begun
        decay = min(self.plan.ema, (1 + done) / (10 + done))
        for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value.detach(), 1 - decay)
        self.step += 1


def trained_task(folder: Path) -> str | None:
    """That of the run that the folder holds, if any."""
    path = folder / CHECKPOINT
    return Plan.model_validate_json(torch.load(path, weights_only=True)["plan"]).task if path.exists() else None


def go(run: Run, minutes: float, save_minutes: float) -> None:
    """Until the plan's end, or for so many minutes; the first process writes log and checkpoints."""
    leads, began = run.place.rank == 0, time.monotonic()
    saved, before, since, losses = began, run.spent, run.step, []
    run.folder.mkdir(parents=True, exist_ok=True)
    with open(run.folder / LOG if leads else os.devnull, "a", buffering=1) as log:
        write(log, began=run.step, processes=run.place.processes, plan=run.plan.model_dump(mode="json"))
        enough = False
        while run.step < run.plan.steps and not enough:
            found, enough = run.advance(time.monotonic() - began > 60 * minutes)
            losses.append(found)
            now = time.monotonic()
            run.spent = before + now - began
            last = enough or run.step == run.plan.steps
            if leads and (last or run.step % 20 == 0):
                pace = (now - began) / (run.step - since)
                write(log, step=run.step, minutes=round(run.spent / 60, 2), seconds_per_step=round(pace, 3),
                      loss=means(losses), rate=round(run.plan.rate(run.step, run.begun), 6), seen=run.seen)  # fmt: skip
                losses = []
            if leads and run.step % run.plan.probe == 0:
                write(log, step=run.step, learned=run.learned())
            if leads and (last or run.step in run.plan.keep or now - saved > 60 * save_minutes):
                run.save()
                saved = now
            if leads and run.step in run.plan.keep:
                torch.save(run.state() | {"optimizers": []}, run.folder / f"step-{run.step:05}.pt")


def means(losses: list[dict[str, float]]) -> dict[str, float]:
    """Of each length, over the steps that had it."""
    names = sorted({name for found in losses for name in found})
    found = {name: [one[name] for one in losses if name in one] for name in names}
    return {name: round(sum(values) / len(values), 4) for name, values in found.items()}


def write(log: TextIO, **line: Any) -> None:
    """One JSON object to the log; short ones to the terminal too."""
    text = json.dumps(line)
    log.write(text + "\n")
    if "plan" not in line and log.name != os.devnull:
        print(text, flush=True)
