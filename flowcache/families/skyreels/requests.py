"""What SkyReels-V2 can be asked for. No torch."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowcache.families.base import Asked
from flowcache.records import ModelSpec


def rightly(solver: str | None, policy: Mapping[str, Any]) -> bool:
    """Whether steps are taken by the corrected solver."""
    return solver == "corrected" or (solver is None and "budget" in policy)


def check(asked: Asked, spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """See `Family.check`."""
    if asked.values["segment"]:
        yield "segment", f"does not go with {spec.name}, which knows windows of one length; accepted: none"
