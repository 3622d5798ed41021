"""All settings on all prompts, each compared with `off` and a converged walk of the same noise, or with one that keeps
all K/V."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowcache.bench import recipes
from flowcache.bench.kept import keeping_all
from flowcache.bench.measured import Judged, row
from flowcache.bench.names import CONVERGED, KV_ALL, OFF, Entry
from flowcache.bench.predicted import predicted
from flowcache.bench.prompts import Drawn, for_ratios
from flowcache.bench.recipe import Recipe
from flowcache.bench.recipes import Ratios
from flowcache.bench.table import BenchTable, Row
from flowcache.bench.vdp import Metric
from flowcache.bench.walking import Studio, Walked
from flowcache.cache.magnitude import Magnitudes, table_of
from flowcache.errors import FlowcacheError
from flowcache.families.spec_file import number
from flowcache.models.base import LoadedModel
from flowcache.models.whole_files import whole, writing
from flowcache.records import ModelSpec
from flowcache.sampling.records import NotFinite
from flowcache.worker.windows import Target

Tell = Callable[[int, int, str], None]  # rows that are there, of so many, and what is under way
SAME = ("name", "digest", "steps", "guidance", "shift", "frames", "width", "height")  # of a checkpoint
WARM_UP = 5  # steps of a walk before the first that is timed


@dataclass(frozen=True)
class Asked:
    """entries: beside references. own: those that must be run. target: to what SSIM and ColorVideoVDP are taken, but
    for K/V. converged: whether converged walks are made, three times as dear as `off`. version: of flowcache.
    """

    prompts: Sequence[Drawn]
    seed: int
    entries: Sequence[Entry]
    own: frozenset[Entry]
    target: Target = "off"
    converged: bool = True
    version: str = ""


def placeholder(spec: ModelSpec) -> Ratios:
    """As if no residual ever changed: enough to say whether a recipe can be followed."""
    return ((1.0,) * spec.steps,)


def common(spec: ModelSpec, asked: Asked, device: str) -> dict[str, object]:
    """What all rows of a table share."""
    fitted = sha256(repr(spec.calibrations).encode()).hexdigest()[:12] if spec.calibrations else None
    same = {key: getattr(spec, key) for key in SAME}
    return {**same, "flowcache": asked.version, "calibration": fitted, "seed": asked.seed, "target": asked.target,
            "converged": asked.converged, "device": device.partition(":")[0]}  # fmt: skip


class Bench:
    """Of one model, into one folder. What lies there already is not rendered again.

    metric: ColorVideoVDP; None: there is none. ValueError where an entry of `asked.own` can't be run, FlowcacheError
    where nothing can be written.
    """

    def __init__(self, model: LoadedModel, folder: Path, asked: Asked, metric: Metric | None = None):
        self.studio, self.folder, self.asked, self.metric = Studio(model), folder, asked, metric
        same = common(model.spec, asked, str(model.transformer.device))
        self.table = BenchTable(folder, same)
        self.kept = folder / "references" / sha256(json.dumps(same).encode()).hexdigest()[:12]
        with writing(self.kept):
            self.kept.mkdir(parents=True, exist_ok=True)
        self.chosen = recipes.chosen(asked.entries, asked.own, model.spec, self.ratios, asked.target)

    @property
    def spec(self) -> ModelSpec:
        return self.studio.spec

    @cached_property
    def settings(self) -> list[tuple[Entry, Recipe]]:
        """All that have rows."""
        return [*self.references, *self.chosen.recipes]

    @cached_property
    def references(self) -> list[tuple[Entry, Recipe]]:
        """What the others are compared with."""
        makers, asked = {OFF: recipes.off, KV_ALL: keeping_all}, {own.reference for own, _ in self.chosen.recipes}
        return [(entry, make(self.spec)) for entry, make in makers.items() if entry in asked]

    def run(self, tell: Tell) -> list[Row]:
        """The rows of all prompts and settings that were asked for."""
        keys = [(prompt.text, prompt.seed, entry) for prompt in self.asked.prompts for entry, _ in self.settings]
        for prompt in self.asked.prompts:

            def told(label: str, text: str = prompt.text) -> None:
                tell(sum(key in self.table for key in keys), len(keys), f"{label}: {text}")

            if any((prompt.text, prompt.seed, entry) not in self.table for entry, _ in self.settings):
                self._measure(prompt, told)
        tell(len(keys), len(keys), "done")
        return [self.table.row(key) for key in keys]

    def _measure(self, prompt: Drawn, told: Callable[[str], None]) -> None:
        self._warm  # noqa: B018
        targets = self._targets(prompt, told)
        walked: dict[Recipe, Walked] = {}  # where a family has but one solver, two settings may be the same
        for entry, recipe in self.settings:
            if (prompt.text, prompt.seed, entry) in self.table:
                continue
            told(entry.label)
            if recipe not in walked:
                walked[recipe] = self._walk(entry, recipe, prompt)
            self._add(prompt, entry, walked[recipe], targets)

    def _targets(self, prompt: Drawn, told: Callable[[str], None]) -> dict[Entry, np.ndarray]:
        """Their frames; the rows of the references are in the table then."""
        counted = {entry: (prompt.text, prompt.seed, entry) for entry, _ in self.references}
        walks = [*self.references]
        if self.asked.converged and OFF in counted:
            walks.append((CONVERGED, recipes.converged(self.spec)))
        made, targets = dict[Entry, Walked](), dict[Entry, np.ndarray]()
        for entry, recipe in walks:
            file = self._reference(entry, prompt)
            latents = _kept(file)
            if latents is None or (entry in counted and counted[entry] not in self.table):
                told(entry.label)
                made[entry] = self._walk(entry, recipe, prompt)
                latents = made[entry].latents.contiguous()
                with whole(file) as part:
                    save_file({"latents": latents}, part)
            targets[entry] = self.studio.frames(latents)
        for entry, key in counted.items():
            if key not in self.table:
                self._add(prompt, entry, made[entry], targets)
        return targets

    def _walk(self, entry: Entry, recipe: Recipe, prompt: Drawn) -> Walked:
        """FlowcacheError names what diverged: what lies in the table is kept."""
        try:
            return self.studio.walk(recipe, prompt.text, prompt.seed)
        except NotFinite as error:
            why = f"{entry.label} on {prompt.text!r}: {error}; name the other --policies to go on without it"
            raise FlowcacheError(why) from error

    def _add(self, prompt: Drawn, entry: Entry, own: Walked, targets: dict[Entry, np.ndarray]) -> None:
        exact = own.forwards
        if entry != entry.reference:
            exact = self.table.row((prompt.text, prompt.seed, entry.reference)).chunk_forwards
        video = Judged(entry, self.studio.frames(own.latents), targets)
        self.table.add(row(self.spec, prompt, own, video, exact, self.asked.target, self.metric))

    def _reference(self, entry: Entry, prompt: Drawn) -> Path:
        """Named by its text too: the same seed may come with other prompts."""
        told = sha256(prompt.text.encode()).hexdigest()[:8]
        return self.kept / f"{entry.policy}-{prompt.seed}-{told}.safetensors"

    @cached_property
    def ratios(self) -> Ratios:
        """What `magcache` goes by, measured once where it is asked for."""
        if all(entry.policy != "magcache" for entry in self.asked.entries):
            return placeholder(self.spec)
        file, prompt = self.kept / "magcache.json", for_ratios(self.asked.prompts, self.asked.seed)
        with suppress(OSError, ValueError, TypeError):  # it is not there, or damaged
            return table_of(json.loads(file.read_text()))
        made = Magnitudes()
        self.studio.walk(recipes.measuring(self.spec, made), prompt.text, prompt.seed)
        table = made.table(self.spec.steps)
        _write(file, json.dumps(table))
        return table_of(table)

    @cached_property
    def predicted(self) -> Mapping[Entry, float]:
        """J of each calibrated schedule; computed once."""
        fixed = [own for own in self.chosen.recipes if own[1].policy.steps and own[1].policy.steps.calibrations]
        file = self.kept / "predicted.json"
        known = _known(file)
        if any(entry.label not in known for entry, _ in fixed):
            found = predicted(self.studio.model, fixed, self.kept, for_ratios(self.asked.prompts, self.asked.seed))
            known |= {entry.label: found.get(entry) for entry, _ in fixed}
            _write(file, json.dumps(known))
        costs = ((entry, known[entry.label]) for entry, _ in fixed)
        return {entry: cost for entry, cost in costs if cost is not None}

    @cached_property
    def _warm(self) -> None:
        """What torch does once is no policy's cost."""
        prompt = self.asked.prompts[0]
        _, first = self.settings[0]
        self.studio.walk(replace(first, steps=WARM_UP), prompt.text, prompt.seed)


def _kept(file: Path) -> Tensor | None:
    """None: it is not there, or damaged."""
    try:
        return load_file(file)["latents"]
    except (OSError, SafetensorError, KeyError):
        return None


def _known(file: Path) -> dict[str, float | None]:
    """What was predicted; nothing of what can't have been."""
    with suppress(OSError, ValueError, AttributeError):
        return {key: each for key, each in json.loads(file.read_text()).items() if each is None or number(each)}
    return {}


def _write(file: Path, text: str) -> None:
    with whole(file) as part:
        part.write_text(text)
