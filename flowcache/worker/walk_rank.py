"""One rank of a gang that walks windows for a calibration."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from flowcache.errors import FlowcacheError
from flowcache.families import calibrations
from flowcache.families.registry import find, folder_digest, load_model
from flowcache.inputs.options import RunOptions
from flowcache.records import ModelSpec
from flowcache.worker.rank import Rank
from flowcache.worker.walking import A, Ask, Walking


@dataclass(frozen=True)
class WalkSettings:
    """What every rank of a calibration shares. spec: as the driver has it; model: where the checkpoint lies, or a
    bundled name; texts: that are encoded before the transformer is loaded."""

    spec: ModelSpec
    model: str
    texts: tuple[str, ...]
    options: RunOptions


class WalkRank(Rank):
    """Becomes a Ray actor in `runtime/walk_gang.py`; knows nothing of Ray itself."""

    def __init__(self, settings: WalkSettings, device: str, rank: int, world: int):
        super().__init__(settings.options, device, rank, world)
        self.settings = settings

    def walk(self, ask: Ask[A]) -> A | None:
        """All ranks walk; rank 0 says what came out."""
        found = self._walking.answer(ask)
        return found if self._walking.shows else None

    @cached_property
    def _walking(self) -> Walking:
        settings = self.settings
        found = find(settings.model)
        digest = folder_digest(Path(found.path), without=calibrations.FILE)
        if digest != settings.spec.digest:
            why = f"is another checkpoint on this node ({digest[:12]}) than at the driver ({settings.spec.digest[:12]})"
            raise FlowcacheError(f"{settings.model} {why}")
        model = self.spread(load_model(settings.model, self.device, texts=settings.texts, load=self.loader))
        return Walking(replace(model, spec=replace(settings.spec, path=found.path)), shows=self.rank == 0)
