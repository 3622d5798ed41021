"""The sampler's settings of a request, by its model's family."""

from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.records import ModelSpec, RenderRequest


def settings_of(request: RenderRequest, spec: ModelSpec) -> SamplerSettings | MagiSettings:
    """What the request says, and the model where it says nothing."""
    family = {"skyreels": SamplerSettings, "magi": MagiSettings}[spec.family]
    return family.of(request, spec)
