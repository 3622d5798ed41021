"""What exact walks say that a schedule would cost: J of `sampling.proposal`, for those that a run measures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from flowcache.bench.names import Entry
from flowcache.bench.prompts import Drawn
from flowcache.bench.recipe import Recipe
from flowcache.models.base import LoadedModel
from flowcache.worker.walking import Here
from flowcache.worker.walks import Walker
from flowcache.worker.windows import Prompt, Windows

CHUNKS = 3  # of the walk: one has neighbours on both sides


def predicted(
    model: LoadedModel, settings: Sequence[tuple[Entry, Recipe]], folder: Path, prompt: Drawn
) -> Mapping[Entry, float]:
    """Of each calibrated schedule, from one prompt's exact walk of `off`, which is kept in `folder`."""
    windows = Windows(model.spec, "off")
    walker = Walker(windows, folder, Here(lambda: model))
    plans = {entry: recipe.plan(model.spec) for entry, recipe in settings}
    found = {entry: plan.calibration for entry, plan in plans.items() if plan.calibration}
    if not found:
        return {}
    walks = walker.walks([Prompt(prompt.text, prompt.seed)], min(CHUNKS, windows.whole))
    return {entry: walks.both((made.steps_of(0), made.computed)) for entry, made in found.items()}
