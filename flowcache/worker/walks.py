"""A model's walks for calibration, whoever walks: exact ones are recorded once, others run a fixed schedule."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowcache.cache.fixed_steps import Calibration, Preset
from flowcache.models.whole_files import whole
from flowcache.sampling.fitting import Example
from flowcache.sampling.proposal import Walks as ExactWalks
from flowcache.sampling.thinned import Jumps
from flowcache.worker.asks import NUDGE, Fit, Nudged, Record, Result, Shown
from flowcache.worker.walking import Ask, Walks
from flowcache.worker.windows import Prompt, Windows

PROBES = 10  # steps at which an error is put into a walk, to see what becomes of it


@dataclass(frozen=True)
class Walker:
    """work: folder for walks that are recorded once. by: who walks."""

    windows: Windows
    work: Path
    by: Walks

    def key(self, prompt: Prompt, chunks: int) -> list[str | int]:
        """What the target's walk depends on."""
        return [self.windows.spec.digest, self.windows.target, prompt.text, prompt.seed, chunks]

    def record(self, prompts: Sequence[Prompt], chunks: int) -> list[Path]:
        """The files of the target's walks, as `asks.Record` has them; those that are not there are walked now."""
        return self._kept([Record(prompt, chunks, self.windows.target) for prompt in prompts])

    def exact(self, prompt: Prompt, chunks: int, step: int) -> list[Tensor]:
        """The target's latents of each chunk before the step; `steps`: at the end."""
        (file,) = self.record([prompt], chunks)
        with safe_open(file, "pt") as found:
            return [found.get_tensor(f"latents/{chunk}/{step}") for chunk in range(chunks)]

    def results(
        self, prompts: Sequence[Prompt], budget: float, made: Preset | None, chunks: int
    ) -> Iterator[tuple[int, tuple[Tensor, Shown]]]:
        """As `Walks.answers`, of windows that take the steps of `made`, with residuals; None: fewer steps."""
        return self.by.answers([Result(prompt, budget, made, chunks) for prompt in prompts])

    def examples(
        self, prompts: Sequence[Prompt], made: Calibration, chunks: int, row: int, to: Mapping[int, int]
    ) -> list[list[Example]]:
        """What the coefficients for a row of walks by `made` are fitted on, prompt by prompt; see `fitting.Ask`. Those
        whose walks diverged are left out."""
        goals = ({chunk: self.exact(prompt, chunks, step)[chunk] for chunk, step in to.items()} for prompt in prompts)
        asks = [Fit(prompt, made, chunks, row, goal) for prompt, goal in zip(prompts, goals, strict=True)]
        found = dict(self.by.answers(asks))
        return [found[number] for number in range(len(asks)) if found[number]]

    def walks(self, prompts: Sequence[Prompt], chunks: int) -> ExactWalks:
        """What a schedule is proposed from."""
        products = list[Tensor]()
        for file in self.record(prompts, chunks):
            with safe_open(file, "pt") as found:
                products += [found.get_tensor(f"products/{chunk}") for chunk in range(chunks)]
        solver = self.windows.plan(1.0, None, 1).solver
        assert isinstance(solver, Jumps)
        time = torch.tensor(solver.carried, dtype=torch.float64)
        lag = self.windows.conditions().lag
        return ExactWalks(lag, torch.stack(products).mean(0), self._growth(prompts[0]), time)

    def _growth(self, prompt: Prompt) -> Tensor:
        """[steps + 1]: to what a small error of one chunk's latents before a step grows; between probes as they go."""
        steps = self.windows.spec.steps
        probes = sorted({round(number * (steps - 1) / (PROBES - 1)) for number in range(PROBES)})
        files = self._kept([Nudged(prompt, at) for at in (None, *probes)])
        exact, *nudged = (load_file(file)["latents"] for file in files)
        grown = [each.sub(exact).norm() / NUDGE / exact.norm() for each in nudged]
        known = torch.tensor([*probes, steps], dtype=torch.float64)
        logs = torch.stack([*grown, torch.tensor(1.0)]).double().clamp_min(1e-6).log()
        found = torch.empty(steps + 1, dtype=torch.float64)
        for step in range(steps + 1):
            after = int(torch.searchsorted(known, float(step)))
            share = (step - known[after - 1]) / (known[after] - known[after - 1]) if after else 1.0
            found[step] = logs[after - 1] + share * (logs[after] - logs[after - 1]) if after else logs[0]
        return found.exp()

    def _kept(self, asks: Sequence[Ask[dict[str, Tensor]]]) -> list[Path]:
        """A file for each answer, in which it is found again. FlowcacheError where it can't be written."""
        files = [self._file(ask) for ask in asks]
        missing = [number for number, file in enumerate(files) if not _readable(file)]
        for number, found in self.by.answers([asks[number] for number in missing]):
            with whole(files[missing[number]]) as part:
                save_file(found, part)
        return files

    def _file(self, ask: Ask[dict[str, Tensor]]) -> Path:
        told = json.dumps([self.windows.spec.digest, type(ask).__name__, vars(ask)], default=asdict)
        return self.work / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.safetensors"


def _readable(file: Path) -> bool:
    """Whether it is there, and not cut off or otherwise damaged: then it is walked anew."""
    try:
        with safe_open(file, "pt"):
            return True
    except (OSError, SafetensorError):
        return False
